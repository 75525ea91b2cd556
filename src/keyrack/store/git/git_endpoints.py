"""Questions about the processes that serve Git, and which acknowledged an offboarding; must decide nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, select, update

from keyrack.store.engine.prepared import among, prepared
from keyrack.store.rows import inserted
from keyrack.store.sealing import sealed
from keyrack.store.tables import git_endpoints, offboarding_git, offboardings


@dataclass(frozen=True, slots=True)
class GitReceipt:
    """One Git endpoint of an offboarding: when it had stopped the person's transfers, and how many those were.

    seen_at: when it was heard of last; None when it has ended.
    """

    endpoint_id: int
    name: str
    acknowledged_at: datetime | None
    stopped: int
    seen_at: datetime | None = None


def begin(connection: Connection, name: str, at: datetime) -> int:
    """A process begins to serve Git, perhaps in the place of one of this name that was killed; answers its id."""
    named = select(git_endpoints.c.id).where(git_endpoints.c.name == name[:255]).order_by(git_endpoints.c.id)
    known = connection.execute(named.limit(1)).scalar()
    if known is not None:
        connection.execute(update(git_endpoints).where(git_endpoints.c.id == known).values(seen_at=at))
        return int(known)
    return inserted(connection, git_endpoints, {"name": name[:255], "seen_at": at})


def note_seen(connection: Connection, endpoint_id: int, at: datetime, *, before: datetime) -> None:
    """Note that it serves Git still, at an instant; those last heard of before another one are forgotten."""
    connection.execute(update(git_endpoints).where(git_endpoints.c.id == endpoint_id).values(seen_at=at))
    connection.execute(git_endpoints.delete().where(git_endpoints.c.seen_at < before))


def end(connection: Connection, endpoint_id: int, at: datetime) -> None:
    """It has ended: nothing runs there any more."""
    connection.execute(git_endpoints.delete().where(git_endpoints.c.id == endpoint_id))
    waiting = (offboarding_git.c.endpoint_id == endpoint_id, offboarding_git.c.acknowledged_at.is_(None))
    sealed.change(connection, offboarding_git, *waiting, values={"acknowledged_at": at})


def wait_for(connection: Connection, offboarding_id: int, since: datetime) -> None:
    """Note which Git endpoints' word is waited for: those that were heard of since an instant."""
    named = select(git_endpoints.c.id, git_endpoints.c.name).where(git_endpoints.c.seen_at >= since)
    rows = [
        {"offboarding_id": offboarding_id, "endpoint_id": row.id, "name": row.name, "stopped": 0}
        for row in connection.execute(named.order_by(git_endpoints.c.id))
    ]
    sealed.insert_rows(connection, offboarding_git, rows)


@prepared
def _unacknowledged(endpoint_id: int) -> Select[Any]:
    return (
        select(offboarding_git.c.offboarding_id, offboardings.c.user_id)
        .join(offboardings, offboardings.c.id == offboarding_git.c.offboarding_id)
        .where(offboarding_git.c.endpoint_id == endpoint_id, offboarding_git.c.acknowledged_at.is_(None))
    )


def unacknowledged(connection: Connection, endpoint_id: int) -> dict[int, int]:
    """Whose transfers an endpoint has not said to have ended: offboarding id to user id."""
    return {row.offboarding_id: row.user_id for row in _unacknowledged.rows(connection, endpoint_id)}


def acknowledge(connection: Connection, offboarding_id: int, endpoint_id: int, at: datetime, stopped: int) -> None:
    """No transfer of that person runs on an endpoint any more; stopped: how many did."""
    named = (offboarding_git.c.offboarding_id == offboarding_id, offboarding_git.c.endpoint_id == endpoint_id)
    sealed.change(connection, offboarding_git, *named, values={"acknowledged_at": at, "stopped": stopped})


@prepared
def _receipts(ids: Iterable[int]) -> Select[Any]:
    return (
        select(offboarding_git, git_endpoints.c.seen_at)
        .outerjoin(git_endpoints, git_endpoints.c.id == offboarding_git.c.endpoint_id)
        .where(among(offboarding_git.c.offboarding_id, ids))
        .order_by(offboarding_git.c.endpoint_id)
    )


def receipts(connection: Connection, ids: Iterable[int]) -> dict[int, list[GitReceipt]]:
    """The receipts of the Git endpoints of some offboardings, by the offboarding's id."""
    by_offboarding: dict[int, list[GitReceipt]] = {}
    for row in _receipts.rows(connection, list(ids)):
        at = row.acknowledged_at if sealed.sound(connection, offboarding_git, row) else None
        receipt = GitReceipt(row.endpoint_id, row.name, at, int(row.stopped), row.seen_at)
        by_offboarding.setdefault(row.offboarding_id, []).append(receipt)
    return by_offboarding
