"""Questions about the processes that serve Git, and their receipts of offboardings; must decide nothing."""

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
    """One Git endpoint of an offboarding: acknowledged_at: when it had ended the person's transfers; stopped: how many
    those were; seen_at: when it was last heard of, None if it is gone.
    """

    endpoint_id: int
    name: str
    acknowledged_at: datetime | None
    stopped: int
    seen_at: datetime | None = None


def begin(connection: Connection, name: str, at: datetime) -> int:
    """Note that a process begins to serve Git; answers its id, which a killed process of this name may have had."""
    named = select(git_endpoints.c.id).where(git_endpoints.c.name == name[:255]).order_by(git_endpoints.c.id)
    known = connection.execute(named.limit(1)).scalar()
    if known is not None:
        connection.execute(update(git_endpoints).where(git_endpoints.c.id == known).values(seen_at=at))
        return int(known)
    return inserted(connection, git_endpoints, {"name": name[:255], "seen_at": at})


def note_seen(connection: Connection, endpoint_id: int, at: datetime, *, before: datetime) -> None:
    """Note that an endpoint still serves Git at an instant; delete endpoints last heard of before another instant."""
    connection.execute(update(git_endpoints).where(git_endpoints.c.id == endpoint_id).values(seen_at=at))
    connection.execute(git_endpoints.delete().where(git_endpoints.c.seen_at < before))


def end(connection: Connection, endpoint_id: int, at: datetime) -> None:
    """Delete an endpoint that has ended, and acknowledge for it, as no transfer runs there any more."""
    connection.execute(git_endpoints.delete().where(git_endpoints.c.id == endpoint_id))
    waiting = (offboarding_git.c.endpoint_id == endpoint_id, offboarding_git.c.acknowledged_at.is_(None))
    sealed.change(connection, offboarding_git, *waiting, values={"acknowledged_at": at})


def wait_for(connection: Connection, offboarding_id: int, since: datetime) -> None:
    """Note that an offboarding waits for all Git endpoints that were heard of since an instant."""
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
    """By offboarding id the user whose transfers an endpoint has not yet said to have ended."""
    return {row.offboarding_id: row.user_id for row in _unacknowledged.rows(connection, endpoint_id)}


def acknowledge(connection: Connection, offboarding_id: int, endpoint_id: int, at: datetime, stopped: int) -> None:
    """Note that no transfer of the person runs on an endpoint any more; stopped: how many it ended."""
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
