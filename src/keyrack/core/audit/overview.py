"""What needs somebody in a workspace now, and how it has been over time; must change nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection

from keyrack.core.audit import standing
from keyrack.core.audit.key_counts import KeyCounts
from keyrack.core.audit.standing import Alarms
from keyrack.core.audit.tallies import DELAYS, LATER, LOGIN, day_of, within
from keyrack.core.hosts.last_seen import ONLINE
from keyrack.core.instance import Instance
from keyrack.core.work import Attempt
from keyrack.model import Actor, Window
from keyrack.store import overview as rows
from keyrack.store.audit import tallies
from keyrack.store.engine.prepared import Row
from keyrack.store.keys import requests

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SOON = timedelta(days=7)
DAYS = 30
NEWEST = rows.NEWEST
"""Only so many newest events are counted by day; the days before them are left out."""
LAGS = ((1, "1 change"), (5, "2 to 5 changes"), (20, "6 to 20 changes"))
"""Groups of hosts by how many changes they are behind at most; beyond the last one is FAR."""
FAR = "more than 20"
DELAY_WORDS = dict(zip(DELAYS, ("a second", "10 seconds", "a minute", "an hour", "a day"), strict=True))


@dataclass(frozen=True, slots=True)
class Overview:
    """Rows as store/overview.py has them.

    webhooks: whose receivers fail; requests: how many wait; keys: at most HOLDS old (key_counts.py); days: for each of
    the last DAYS days, oldest first, how much was done and refused; fewer days where more events happened than are
    counted; logins: that hosts reported, for each of these days; delays: how long hosts took to obey changes, and how
    often.
    """

    alarms: Alarms
    webhooks: list[Row]
    unmanaged: list[Row]
    silent: list[Row]
    behind: list[Row]
    ending: list[Row]
    ending_keys: list[Row]
    unacknowledged: list[Row]
    requests: int
    keys: KeyCounts
    days: tuple[tuple[datetime, int, int], ...]
    logins: tuple[tuple[datetime, int], ...]
    delays: tuple[tuple[str, int], ...]
    at: datetime

    @property
    def is_quiet(self) -> bool:
        """Whether nothing needs anybody."""
        alarms = self.alarms.standing or self.alarms.saying or self.alarms.bounds
        hosts = alarms or self.unmanaged or self.silent or self.behind
        return not (hosts or self.webhooks or self.ending or self.ending_keys or self.unacknowledged or self.requests)

    @property
    def lags(self) -> tuple[tuple[str, int], ...]:
        """How many hosts are how many changes behind; only of the hosts in `behind`."""
        counted: Counter[str] = Counter()
        for row in self.behind:
            changes = row.revision - row.applied_revision
            counted[next((words for most, words in LAGS if changes <= most), FAR)] += 1
        return tuple((words, counted[words]) for words in (*(words for _, words in LAGS), FAR))


def get(instance: Instance, actor: Actor) -> Overview:
    """The overview of the actor's workspace. Raises Refusal FORBIDDEN."""
    with Attempt(instance, actor, "access:read", "see what needs somebody", target_kind="workspace") as attempt:
        return attempt.read(lambda connection: _of_workspace(instance, connection, actor.workspace_id, instance.now()))


def _of_workspace(instance: Instance, connection: Connection, workspace: int, now: datetime) -> Overview:
    logins, delays = _tallies(connection, workspace, now)
    return Overview(
        alarms=standing.of_workspace(instance, connection, workspace),
        webhooks=rows.failing_webhooks(connection, workspace),
        unmanaged=rows.unmanaged(connection, workspace),
        silent=rows.silent(connection, workspace, now - ONLINE),
        behind=rows.behind(connection, workspace),
        ending=rows.ending(connection, workspace, now, now + SOON),
        ending_keys=rows.ending_keys(connection, workspace, now, now + SOON),
        unacknowledged=rows.unacknowledged(connection, workspace),
        requests=requests.page(connection, workspace, Window(1), state=requests.PENDING, user_id=None).total,
        keys=instance.key_counts.of(connection, workspace, now),
        days=_days(connection, workspace, now),
        logins=logins,
        delays=delays,
        at=now,
    )


def _tallies(
    connection: Connection, workspace: int, now: datetime
) -> tuple[tuple[tuple[datetime, int], ...], tuple[tuple[str, int], ...]]:
    """Logins by day, oldest first, and how long hosts took to obey; both empty where nothing was counted."""
    first = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=DAYS - 1)
    logins: Counter[int] = Counter()
    delays: Counter[str] = Counter()
    for row in tallies.since(connection, workspace, day_of(first)):
        if row.what == LOGIN:
            logins[row.day - day_of(first)] += row.number
        else:
            delays[row.what] += row.number
    named = ((DELAY_WORDS[seconds], delays[within(seconds)]) for seconds in DELAYS)
    return (
        tuple((first + timedelta(days=day), logins[day]) for day in range(DAYS)) if logins else (),
        (*named, ("later", delays[LATER])) if delays else (),
    )


def _days(connection: Connection, workspace: int, now: datetime) -> tuple[tuple[datetime, int, int], ...]:
    """For each day, oldest first, how much was done and how much refused."""
    first = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=DAYS - 1)
    counted = {(EPOCH + timedelta(days=row.day) - first).days: row for row in rows.by_day(connection, workspace, first)}
    # Beyond NEWEST events nothing is counted, so the first day is incomplete and left out.
    cut = sum(row.number for row in counted.values()) >= NEWEST
    shown = range(min(min(counted) + 1, DAYS - 1) if cut else 0, DAYS)
    days = [(first + timedelta(days=day), counted.get(day)) for day in shown]
    return tuple((at, row.done if row else 0, row.refused if row else 0) for at, row in days)
