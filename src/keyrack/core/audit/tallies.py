"""Counts for charts over days: logins that hosts report, and how long hosts take to obey changes; must decide nothing.

A process counts in memory and adds that to the database every few seconds, so that no report waits for it. What a
killed process had not added is lost.
"""

from __future__ import annotations

import threading
from collections import Counter
from datetime import UTC, datetime

from keyrack.logs import logger
from keyrack.store.audit import tallies
from keyrack.store.audit.tallies import Tally
from keyrack.store.database import Database, DatabaseUnavailable

LOGIN = "login"
DELAYS = (1, 10, 60, 3600, 86_400)
"""In seconds: a delay is counted for the shortest of these that it is within."""
LATER = "acknowledged later"
KEPT_DAYS = 100
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

log = logger("keyrack")


def within(seconds: int) -> str:
    """The name under which delays within so many seconds, of DELAYS, are counted."""
    return f"acknowledged in {seconds} s"


def day_of(at: datetime) -> int:
    """The day of an instant, in days since 1970, in UTC."""
    return (at - _EPOCH).days


class Tallies:
    """The counts of one process that are not in the database yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counted: Counter[Tally] = Counter()
        self._forgot = 0

    def logins(self, workspace_id: int, number: int, at: datetime) -> None:
        """Count logins that a host reported."""
        if number:
            self._count((workspace_id, day_of(at), LOGIN), number)

    def acknowledged(self, workspace_id: int, seconds: float, at: datetime) -> None:
        """Count an acknowledgement that came so many seconds after the change."""
        name = next((within(most) for most in DELAYS if seconds <= most), LATER)
        self._count((workspace_id, day_of(at), name), 1)

    def write(self, database: Database, now: datetime) -> None:
        """Add the counts to the database, and once a day delete old ones. Never raises."""
        with self._lock:
            counted, self._counted = self._counted, Counter()
        today = day_of(now)
        try:
            if counted:
                database.write(lambda connection: tallies.add(connection, counted))
                counted = Counter()
            if self._forgot != today:
                database.write(lambda connection: tallies.forget(connection, today - KEPT_DAYS))
                self._forgot = today
        except (DatabaseUnavailable, RuntimeError):
            with self._lock:
                self._counted.update(counted)
            log.info("what is counted a day is added later")

    def _count(self, tally: Tally, number: int) -> None:
        with self._lock:
            self._counted[tally] += number
