"""When each host was last seen; must cost no request a write of its own: it is noted in memory, and written for all
hosts together.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from keyrack.core.instance import Instance
from keyrack.model import Server
from keyrack.store.hosts import host_reports

ONLINE = timedelta(seconds=90)
"""Agents ask again at least every 50 seconds."""
WRITE_SECONDS = 20.0  # an agent asks every half minute or so; both together stay well below ONLINE


def is_online(server: Server, now: datetime) -> bool:
    """Whether a server's host has been heard of within ONLINE."""
    return is_recent(server.seen_at, now)


def is_recent(seen_at: datetime | None, now: datetime) -> bool:
    """Whether a time at which a host was seen is within ONLINE; None: never seen."""
    return seen_at is not None and now - seen_at < ONLINE


@dataclass
class LastSeen:
    """The hosts that one process has heard of since the last write."""

    clock: Callable[[], float] = time.monotonic
    _seen: set[int] = field(default_factory=set)
    _written_at: float = float("-inf")
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def saw(self, server_id: int) -> None:
        """Note that a host sent a request; from any thread."""
        with self._lock:
            self._seen.add(server_id)

    def write(self, instance: Instance) -> int:
        """Write all noted hosts to the database, at most every WRITE_SECONDS; answers how many.

        Raises DatabaseUnavailable; they stay noted then.
        """
        now = self.clock()
        with self._lock:
            if not self._seen or now - self._written_at < WRITE_SECONDS:
                return 0
            seen, self._seen = self._seen, set()
            written_before, self._written_at = self._written_at, now
        at = instance.now()
        try:
            # Nobody's command, and nothing that a host obeys: it leaves no event and no revision.
            instance.database.write(lambda connection: host_reports.note_seen(connection, seen, at))
        except BaseException:
            with self._lock:
                self._seen |= seen
                self._written_at = written_before
            raise
        return len(seen)
