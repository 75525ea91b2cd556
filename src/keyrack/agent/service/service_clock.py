"""Estimates the service's time, also while it does not answer or somebody sets this host's clock; must set no clock.

The end of a key counts by the service's clock, but sshd uses this host's. Where this host's clock is behind, ends are
written that much earlier (decision 332). The estimate is never later than the truth: each answer was written before it
arrived, and each document's time is from before it was signed.
"""

from __future__ import annotations

import math
import time

from keyrack.agent.state import Status
from keyrack.agent.system.processes import boot_id, since_boot

LEAST_SECONDS = 2.0  # a smaller difference is ignored: an answer has only whole seconds
_SET_BACK_SECONDS = 60.0  # if the estimate is so much too late, the service's own clock was set back
_SPARE_SECONDS = 30  # so much too early an end may be before it is written again


class ServiceClock:
    """Keeps the estimate relative to CLOCK_BOOTTIME, which nobody can set and which goes on while the host sleeps."""

    def __init__(self) -> None:
        self._ahead = -math.inf  # seconds since 1970 by the service's clock, less seconds since the boot
        self._behind = 0

    def note(self, moment: float) -> None:
        """Take the time of an answer of the service, in seconds since 1970."""
        ahead = moment - since_boot()
        if ahead > self._ahead or ahead < self._ahead - _SET_BACK_SECONDS:
            self._ahead = ahead

    def is_past(self, moment: float) -> None:
        """Take a time that has passed by the service's clock, from a note or a document, in seconds since 1970."""
        self._ahead = max(self._ahead, moment - since_boot())

    def recall(self, status: Status) -> None:
        """Take the estimate from a saved status: as it was within the same boot, else as a time that has passed."""
        if status.service_at:
            self.is_past(status.service_at)
            if status.boot and status.boot == boot_id():
                self._ahead = max(self._ahead, status.since_boot)

    def noted(self, status: Status) -> Status:
        """The status with the estimate of now."""
        if self._ahead == -math.inf:
            return status
        return status._replace(service_at=self._ahead + since_boot(), since_boot=self._ahead, boot=boot_id())

    def behind(self) -> int:
        """How many seconds, at least, this host's clock is behind the service's; 0 where it is not, or too little."""
        seconds = self._ahead + since_boot() - time.time()
        if seconds < (LEAST_SECONDS / 2 if self._behind else LEAST_SECONDS):
            self._behind = 0
        elif not 0 <= self._behind - seconds <= _SPARE_SECONDS:
            self._behind = math.ceil(seconds)
        return self._behind
