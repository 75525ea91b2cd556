"""Logs when the database stops answering and when it answers again; must not log each failed question."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

QUIET_SECONDS = 30.0
"""The least time between two logged failures, of one outage or of several."""


class Outage:
    """Whether something works, as one process sees it. May be used from any thread."""

    def __init__(self, what: str = "The database answers", clock: Callable[[], float] = time.monotonic) -> None:
        """what: what is logged once it works, before "again"."""
        self._what = what
        self._clock = clock
        self._lock = threading.Lock()
        self._failed = 0
        self._said = False
        self._said_at = float("-inf")

    def failed(self, error: Exception | str) -> None:
        """Note a failure: the first is logged, further ones within QUIET_SECONDS are counted."""
        with self._lock:
            self._failed += 1
            now = self._clock()
            if now - self._said_at < QUIET_SECONDS:
                return
            self._said_at, self._said = now, True
            failed = self._failed
        more = f" ({failed} times so far)" if failed > 1 else ""
        log.error("%s%s", str(error).strip().partition("\n")[0], more)

    def answered(self) -> None:
        """Note a success."""
        if not self._failed:
            return
        with self._lock:
            failed, self._failed = self._failed, 0
            said, self._said = self._said, False
        if said:
            log.warning("%s again, after %d times in vain.", self._what, failed)
