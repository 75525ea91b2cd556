"""Counts requests a minute, by whom they come from; must refuse nothing before its bound and keep nothing on disk."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

WINDOW_SECONDS = 60.0
# Beyond this many callers in one minute, those whose minute is over are forgotten first.
MAX_CALLERS = 50_000


@dataclass(frozen=True, slots=True)
class Quota:
    """What a caller may still send: at most limit a minute, remaining of them now.

    wait: whole seconds until it may send again, 0 while it may. resets: whole seconds until its minute is over.
    """

    limit: int
    remaining: int
    wait: int = 0
    resets: int = 60


@dataclass(slots=True)
class _Window:
    ends: float
    used: int


class RateLimit:
    """A fixed window a caller that begins with its first request; each process counts for itself."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self._clock = clock
        self._lock = threading.Lock()
        self._minutes: OrderedDict[Hashable, _Window] = OrderedDict()

    def take(self, caller: Hashable, cost: int = 1) -> Quota:
        """Count one request, or as many as it costs. A quota with a wait means that it is too many, and not counted."""
        with self._lock:
            now = self._clock()
            minute = self._minutes.get(caller)
            if minute is None or minute.ends <= now:
                minute = self._begin(caller, now)
            resets = max(1, math.ceil(minute.ends - now))
            if minute.used + cost > self.limit:
                return Quota(self.limit, max(0, self.limit - minute.used), resets, resets)
            minute.used += cost
            return Quota(self.limit, self.limit - minute.used, 0, resets)

    def peek(self, caller: Hashable) -> Quota:
        """The quota as it is, without counting."""
        with self._lock:
            now = self._clock()
            minute = self._minutes.get(caller)
            if minute is None or minute.ends <= now:
                return Quota(self.limit, self.limit)
            resets = max(1, math.ceil(minute.ends - now))
            return Quota(self.limit, self.limit - minute.used, 0 if minute.used < self.limit else resets, resets)

    def _begin(self, caller: Hashable, now: float) -> _Window:
        # All minutes are as long, so that they end in the order in which they began: no caller pays for all others.
        self._minutes.pop(caller, None)
        while self._minutes and (len(self._minutes) >= MAX_CALLERS or next(iter(self._minutes.values())).ends <= now):
            self._minutes.popitem(last=False)
        minute = self._minutes[caller] = _Window(now + WINDOW_SECONDS, 0)
        return minute
