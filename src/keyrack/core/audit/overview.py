"""What needs somebody in a workspace at this moment, and how it looks over time; must change nothing."""

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
"""So many events are counted by day; of the days before them nothing is told."""
LAGS = ((1, "1 change"), (5, "2 to 5 changes"), (20, "6 to 20 changes"))
"""How far behind hosts are, as they are counted: up to so many changes; what is beyond is FAR."""
FAR = "more than 20"
DELAY_WORDS = dict(zip(DELAYS, ("a second", "10 seconds", "a minute", "an hour", "a day"), strict=True))


@dataclass(frozen=True, slots=True)
class Overview:
    """Rows as store/overview.py has them. alarms: those that stand, those settled lately, and what other hosts say;
    webhooks: those whose receivers take nothing; requests: how many wait; keys: the users' keys,
    counted a minute ago at most; days: per day of the last month, or of its end where more happened than is counted,
    the oldest first, how much was done and how much refused; logins: that hosts told of, per day of the last month;
    delays: how long hosts took to obey what was decided in that time, how often each.
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
        hosts = self.alarms.standing or self.alarms.saying or self.unmanaged or self.silent or self.behind
        return not (hosts or self.webhooks or self.ending or self.ending_keys or self.unacknowledged or self.requests)

    @property
    def lags(self) -> tuple[tuple[str, int], ...]:
        """How many hosts are how many changes behind; of more than a thousand, those that `behind` names."""
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
    """Logins by day, the oldest first, and how long changes took to hosts; both empty where none was counted."""
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
    """Of each day, the oldest first, how much was done and how much refused."""
    first = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=DAYS - 1)
    counted = {(EPOCH + timedelta(days=row.day) - first).days: row for row in rows.by_day(connection, workspace, first)}
    # What is older than the newest so many was not counted: the day in which they begin is not whole.
    cut = sum(row.number for row in counted.values()) >= NEWEST
    shown = range(min(min(counted) + 1, DAYS - 1) if cut else 0, DAYS)
    days = [(first + timedelta(days=day), counted.get(day)) for day in shown]
    return tuple((at, row.done if row else 0, row.refused if row else 0) for at, row in days)
