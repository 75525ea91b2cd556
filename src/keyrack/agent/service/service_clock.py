"""Estimates the service's time from below, also while nobody answers or this host's clock is set; must set no clock.

An end of a key is promised by the service's clock, and sshd goes by this host's. Where that one is behind, an end is
written earlier by as much (decision 332). What is known is never later than the truth: each answer was written before
it came, and each document before it was signed.
"""

from __future__ import annotations

import math
import time

from keyrack.agent.state import Status
from keyrack.agent.system.processes import boot_id, since_boot

LEAST_SECONDS = 2.0  # that a clock must be behind to count: an answer tells whole seconds
_SET_BACK_SECONDS = 60.0  # by so much less only the service's own clock differs
_SPARE_SECONDS = 30  # by which an end may come too early before it is written anew


class ServiceClock:
    """By a clock that nobody sets (CLOCK_BOOTTIME), and that goes on while the host sleeps."""

    def __init__(self) -> None:
        self._ahead = -math.inf  # of that clock
        self._behind = 0

    def note(self, moment: float) -> None:
        """An answer of the service was written at this moment by its clock, in seconds since 1970."""
        ahead = moment - since_boot()
        if ahead > self._ahead or ahead < self._ahead - _SET_BACK_SECONDS:
            self._ahead = ahead

    def is_past(self, moment: float) -> None:
        """It was not earlier than this, by the service's clock: from a note, or a document."""
        self._ahead = max(self._ahead, moment - since_boot())

    def recall(self, status: Status) -> None:
        """Know what was noted: as well as then since the same boot, else that it was not earlier."""
        if status.service_at:
            self.is_past(status.service_at)
            if status.boot and status.boot == boot_id():
                self._ahead = max(self._ahead, status.since_boot)

    def noted(self, status: Status) -> Status:
        """With what is known now."""
        if self._ahead == -math.inf:
            return status
        return status._replace(service_at=self._ahead + since_boot(), since_boot=self._ahead, boot=boot_id())

    def behind(self) -> int:
        """By how many seconds this host's clock is behind it, at least; 0 where it is not, or by too little."""
        seconds = self._ahead + since_boot() - time.time()
        if seconds < (LEAST_SECONDS / 2 if self._behind else LEAST_SECONDS):
            self._behind = 0
        elif not 0 <= self._behind - seconds <= _SPARE_SECONDS:
            self._behind = math.ceil(seconds)
        return self._behind
