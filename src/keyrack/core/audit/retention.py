"""Deletes what was kept as long as it must be, a little at a time; must never delete what still counts."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from keyrack.core.instance import Instance
from keyrack.core.work import Attempt, Work
from keyrack.logs import logger
from keyrack.model import Actor
from keyrack.settings import Settings
from keyrack.store.audit import retention

log = logger("keyrack")

BATCH_SIZE = 500
"""So many rows of a kind are in one transaction, which holds up other writes for some milliseconds."""
EVERY_SECONDS = 3600.0
A_MINUTE = timedelta(minutes=1)
AN_HOUR = timedelta(hours=1)
A_MONTH = timedelta(days=30)
LEAP = A_MONTH
WAIT_AFTER_LEAP_SECONDS = 24 * 3600.0
"""Time to notice that the clock is wrong, which it is by everything else that has an end."""


@dataclass(frozen=True, slots=True)
class OutdatedRows:
    """How many rows of a kind are older than `before` and may be deleted."""

    kind: str
    before: datetime
    rows: int


def _days(name: str) -> Callable[[Settings], timedelta | None]:
    """The age that a setting gives in days; None, for ever, where it is 0."""

    def age(settings: Settings) -> timedelta | None:
        days = getattr(settings, name)
        return timedelta(days=days) if days else None

    return age


# How long each is kept after its end; None: for ever. Ended tokens are kept as long as the log, as `apply` would create
# a token of its file anew once the old one is deleted.
AGES: dict[str, Callable[[Settings], timedelta | None]] = {
    "events": _days("events_days"),
    "IAM tokens": lambda settings: AN_HOUR,
    "temporary access keys": lambda settings: AN_HOUR,
    "other ended tokens": _days("events_days"),
    "failed signatures": lambda settings: A_MONTH,
    "enrolment tokens": lambda settings: A_MONTH,
    "last uses": _days("key_uses_days"),
    "revocations": _days("revocations_days"),
    "ended keys": _days("expired_keys_days"),
    "requests for access": _days("events_days"),
    "freezes": _days("events_days"),
    "offboardings": _days("events_days"),
    "deleted servers": _days("deleted_servers_days"),
}


def due(instance: Instance, actor: Actor) -> tuple[OutdatedRows, ...]:
    """What tidy() would delete, by kind, also where that is nothing."""
    with Attempt(instance, actor, "instance:tidy", "see what may be deleted", target_kind="instance") as attempt:
        return tuple(
            OutdatedRows(kind, before, attempt.read(partial(retention.count, kind=kind, before=before)))
            for kind, before in _ends(instance)
        )


def tidy(instance: Instance, actor: Actor) -> Counter[str]:
    """Delete what is due, at most BATCH_SIZE rows of each kind; answers how many of each, empty where nothing was due.

    This is one transaction, with an event in each workspace that lost rows.
    """
    with Attempt(
        instance, actor, "instance:tidy", "delete what was kept long enough", target_kind="instance"
    ) as attempt:
        # Searched before the transaction, as other writes wait for that.
        old = {
            (kind, before): attempt.read(partial(retention.outdated, kind=kind, before=before, limit=BATCH_SIZE))
            for kind, before in _ends(instance)
        }
        if not any(old.values()):
            return Counter()

        def change(work: Work) -> Counter[str]:
            deleted: Counter[str] = Counter()
            chain_details: dict[str, Any] = {}
            by_workspace: dict[int, Counter[str]] = {}
            for (kind, before), rows in old.items():
                removed = retention.remove(work.connection, kind, before, rows) if rows else set()
                if kind == "events" and removed:
                    # These details are in the chain. By them verify_log.py tells deleted events from missing ones, and
                    # knows which ones stayed among the deleted.
                    numbers = sorted(int(key[0]) for key in removed)
                    chain_details["events_until"] = numbers[-1]
                    if kept := retention.kept_among(work.connection, numbers):
                        chain_details["events_kept"] = kept
                for row in rows:
                    if row[:-1] in removed:
                        deleted[kind] += 1
                        by_workspace.setdefault(int(row[-1]), Counter())[kind] += 1
            for workspace_id, counts in sorted(by_workspace.items()):
                words = ", ".join(f"{count} {kind}" for kind, count in counts.items())
                summary = f"Deleted what was kept long enough: {words}"
                work.record(summary, workspace_id=workspace_id, details={"deleted": dict(counts), **chain_details})
            if not by_workspace:
                work.no_event("another process was quicker")
            return deleted

        return attempt.write(change)


class TidyTimer:
    """Calls tidy() for a service: every hour, and at once again as long as something is left.

    Not for a day where the time of day leapt by more than LEAP, against the clock that nobody sets or, at the start,
    against the newest event: to a clock that is years ahead the whole log is old, and what went does not come back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = clock()
        self._ahead: float | None = None  # how far the time of day is ahead of the clock that nobody sets

    def tidy(self, instance: Instance, actor: Actor) -> None:
        """Call it every few seconds. Raises DatabaseUnavailable."""
        ahead = instance.now().timestamp() - self._clock()
        leap = _since_newest_event(instance) if self._ahead is None else timedelta(seconds=ahead - self._ahead)
        if leap > LEAP:
            if self._ahead is not None:
                log.warning("the clock leapt ahead; nothing that is old is deleted for a day", by=str(leap))
            self._next = self._clock() + WAIT_AFTER_LEAP_SECONDS
        self._ahead = ahead
        if self._clock() < self._next:
            return
        full = max(tidy(instance, actor).values(), default=0) >= BATCH_SIZE
        self._next = self._clock() + (0.0 if full else EVERY_SECONDS)


def _since_newest_event(instance: Instance) -> timedelta:
    """How long nothing happened before this service began, which is less than a minute ago."""
    now = instance.now()
    newest = instance.database.read(lambda connection: retention.newest_event(connection, now - A_MINUTE))
    return timedelta() if newest is None else now - newest


def _ends(instance: Instance) -> list[tuple[str, datetime]]:
    now = instance.now()
    ages = {kind: age(instance.settings) for kind, age in AGES.items()}
    return [(kind, now - age) for kind, age in ages.items() if age is not None]
