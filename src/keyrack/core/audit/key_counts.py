"""Counts of the users' keys by type and age, made at most once a minute where there are many; must change nothing."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from keyrack.store import overview as rows

AGES = ((30, "under a month"), (180, "under half a year"), (365, "under a year"), (730, "under two years"))
OLDER = "older"
FEW = 10_000
"""Up to so many keys are counted anew each time."""
HOLDS = timedelta(minutes=1)
MAX = 1000
"""So many workspaces' counts are in the cache; then it is emptied."""


@dataclass(frozen=True, slots=True)
class KeyCounts:
    """The users' keys of a workspace by type, the most frequent first, and by age, as pairs with their number; at: when
    they were counted.
    """

    types: tuple[tuple[str, int], ...]
    ages: tuple[tuple[str, int], ...]
    at: datetime

    @property
    def total(self) -> int:
        """How many there are."""
        return sum(number for _, number in self.ages)


class KeptCounts:
    """The counts that one process made last, by workspace."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[int, KeyCounts] = {}

    def of(self, connection: Connection, workspace: int, now: datetime) -> KeyCounts:
        """The counts of a workspace, at most HOLDS old."""
        with self._lock:
            kept = self._kept.get(workspace)
        if kept is not None and kept.total > FEW and timedelta(0) <= now - kept.at < HOLDS:
            return kept
        counts = _count(connection, workspace, now)
        with self._lock:
            if len(self._kept) >= MAX:
                self._kept.clear()
            self._kept[workspace] = counts
        return counts


def _count(connection: Connection, workspace: int, now: datetime) -> KeyCounts:
    types: Counter[str] = Counter()
    ages = dict.fromkeys((*(words for _, words in AGES), OLDER), 0)
    named = tuple(ages)
    for row in rows.keys_by_type_and_age(connection, workspace, [now - timedelta(days=days) for days, _ in AGES]):
        types[row.key_type] += row["keys"]
        ages[named[row.age]] += row["keys"]
    return KeyCounts(tuple(types.most_common()), tuple(ages.items()), now)
