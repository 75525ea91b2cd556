"""When each host was last seen: noted in memory at each request, written for all of them together; must cost no request
a write of its own.
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
    """Whether a server's host was heard of within the last minute and a half."""
    return server.seen_at is not None and now - server.seen_at < ONLINE


@dataclass
class LastSeen:
    """The hosts heard of since the last write, in one process. A host's question costs no write of its own."""

    clock: Callable[[], float] = time.monotonic
    _seen: set[int] = field(default_factory=set)
    _written_at: float = float("-inf")
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def saw(self, server_id: int) -> None:
        """A host asked or told something; from any thread."""
        with self._lock:
            self._seen.add(server_id)

    def write(self, instance: Instance) -> int:
        """Note all of them in the database when it is time; answers how many.

        Raises DatabaseUnavailable; then they are still to be written.
        """
        now = self.clock()
        with self._lock:
            if not self._seen or now - self._written_at < WRITE_SECONDS:
                return 0
            heard, self._seen = self._seen, set()
            before, self._written_at = self._written_at, now
        at = instance.now()
        try:
            # No command of anybody: it changes nothing that a host obeys, so it leaves no event and no revision.
            instance.database.write(lambda connection: host_reports.note_seen(connection, heard, at))
        except BaseException:
            with self._lock:
                self._seen |= heard
                self._written_at = before
            raise
        return len(heard)
