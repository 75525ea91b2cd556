"""What needs somebody in a workspace at this moment, and how it looks over time; must change nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from keyrack.core.hosts.last_seen import ONLINE
from keyrack.core.instance import Instance
from keyrack.core.work import Attempt
from keyrack.model import Actor
from keyrack.store import overview as rows
from keyrack.store import requests
from keyrack.store.engine.prepared import Row

SOON = timedelta(days=7)
DAYS = 30
AGES = ((30, "under a month"), (180, "under half a year"), (365, "under a year"), (730, "under two years"))
OLDER = "older"


@dataclass(frozen=True, slots=True)
class Overview:
    """Rows as store/overview.py has them. ages: how many of the users' keys are how old; days: per day since a month
    ago, the oldest first, how much was done and how much refused; requests: how many wait.
    """

    unmanaged: list[Row]
    silent: list[Row]
    behind: list[Row]
    ending: list[Row]
    unconfirmed: list[Row]
    requests: int
    types: list[Row]
    ages: tuple[tuple[str, int], ...]
    days: tuple[tuple[datetime, int, int], ...]
    at: datetime

    @property
    def is_quiet(self) -> bool:
        """Whether nothing needs anybody."""
        return not (self.unmanaged or self.silent or self.behind or self.ending or self.unconfirmed or self.requests)


def look(instance: Instance, actor: Actor) -> Overview:
    """The overview of the actor's workspace. Raises Refusal FORBIDDEN."""
    with Attempt(instance, actor, "access:read", "see what needs somebody", target_kind="workspace") as attempt:
        return attempt.read(lambda connection: _look(connection, actor.workspace_id, instance.now()))


def _look(connection: Connection, workspace: int, now: datetime) -> Overview:
    return Overview(
        unmanaged=rows.unmanaged(connection, workspace),
        silent=rows.silent(connection, workspace, now - ONLINE),
        behind=rows.behind(connection, workspace),
        ending=rows.ending(connection, workspace, now, now + SOON),
        unconfirmed=rows.unconfirmed(connection, workspace),
        requests=requests.page(connection, workspace, state=requests.PENDING, user_id=None, offset=0, limit=1).total,
        types=rows.key_types(connection, workspace),
        ages=_ages(connection, workspace, now),
        days=_days(connection, workspace, now),
        at=now,
    )


def _ages(connection: Connection, workspace: int, now: datetime) -> tuple[tuple[str, int], ...]:
    counts = [rows.older_keys(connection, workspace, now + timedelta(days=1))]
    counts += [rows.older_keys(connection, workspace, now - timedelta(days=days)) for days, _ in AGES]
    named = [(words, counts[index] - counts[index + 1]) for index, (_, words) in enumerate(AGES)]
    return (*named, (OLDER, counts[-1]))


def _days(connection: Connection, workspace: int, now: datetime) -> tuple[tuple[datetime, int, int], ...]:
    first = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=DAYS - 1)
    done, refused = [0] * DAYS, [0] * DAYS
    for row in rows.moments(connection, workspace, first):
        day = min((row.at - first).days, DAYS - 1)
        counted = done if row.outcome == "done" else refused
        counted[day] += 1
    return tuple((first + timedelta(days=day), done[day], refused[day]) for day in range(DAYS))
