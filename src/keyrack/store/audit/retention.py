"""Counts, finds and deletes rows that are older than some age; must decide no age."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Select, Table, and_, delete, func, or_, select, tuple_

from keyrack.store.engine.prepared import prepared
from keyrack.store.keys.requests import APPROVED, PENDING
from keyrack.store.sealing import receipts, sealed
from keyrack.store.sealing.seals import VOLATILE
from keyrack.store.tables import (
    access_key_failures,
    access_keys,
    access_requests,
    credentials,
    deleted_servers,
    deploy_keys,
    enrolments,
    events,
    expired_keys,
    freezes,
    key_uses,
    offboardings,
    revocations,
    revoked_keys,
    servers,
    tokens,
    unmanaged_keys,
    user_keys,
    users,
)

FIRST = 50_000
"""How many of the first events are searched for old ones, which takes a hundredth of a second. Among them may be events
from a clock that was ahead, which stay until their time has come.
"""


@dataclass(frozen=True, slots=True)
class ExpiringRows:
    """Rows of one table that are deleted by age.

    key: the columns that identify a row; old: makes a question for the rows from before a time: the key of each, then
    the id of its workspace, 0 for none.
    """

    table: Table
    key: tuple[Column[Any], ...]
    old: Callable[[datetime], Select[Any]]


def _events(before: datetime) -> Select[Any]:
    return select(events.c.id, events.c.workspace_id).where(events.c.at < before).order_by(events.c.id)


def _ended_tokens(*conditions: Any) -> Callable[[datetime], Select[Any]]:
    def old(before: datetime) -> Select[Any]:
        ended = or_(tokens.c.expires_at < before, tokens.c.revoked_at < before)
        return select(tokens.c.id, tokens.c.workspace_id).where(ended, *conditions)

    return old


def _temporary_access_keys(before: datetime) -> Select[Any]:
    return (
        select(access_keys.c.id, users.c.workspace_id)
        .join(users, users.c.id == access_keys.c.user_id)
        .where(access_keys.c.expires_at < before, access_keys.c.security_token_hash.is_not(None))
    )


def _failures(before: datetime) -> Select[Any]:
    return (
        select(access_key_failures.c.access_key_id, access_key_failures.c.address, users.c.workspace_id)
        .join(access_keys, access_keys.c.id == access_key_failures.c.access_key_id)
        .join(users, users.c.id == access_keys.c.user_id)
        .where(access_key_failures.c.last_at < before)
    )


def _enrolments(before: datetime) -> Select[Any]:
    return (
        select(enrolments.c.id, servers.c.workspace_id)
        .join(servers, servers.c.id == enrolments.c.server_id)
        .where(enrolments.c.expires_at < before)
    )


def _key_uses(before: datetime) -> Select[Any]:
    """Last uses of keys that are neither credentials, user keys nor deploy keys any more."""
    held = [
        select(table.c.fingerprint).where(table.c.fingerprint == key_uses.c.fingerprint).exists()
        for table in (credentials, user_keys, deploy_keys)
    ]
    return (
        select(key_uses.c.fingerprint, key_uses.c.server_id, func.coalesce(servers.c.workspace_id, 0))
        .outerjoin(servers, servers.c.id == key_uses.c.server_id)
        .where(key_uses.c.last_used_at < before, ~or_(*held))
    )


def _revocations(before: datetime) -> Select[Any]:
    """Revocations that a host acknowledged before then, of keys that it does not find in its files and that are not
    revoked everywhere.

    Also revoked before then, by a column under the row's seal; remove() checks the receipts of acknowledgements.
    """
    statement = select(unmanaged_keys.c.id).where(
        unmanaged_keys.c.fingerprint == revocations.c.fingerprint,
        unmanaged_keys.c.server_id == revocations.c.server_id,
        unmanaged_keys.c.state != "gone",
    )
    everywhere = select(revoked_keys.c.fingerprint).where(
        and_(
            revoked_keys.c.workspace_id == servers.c.workspace_id,
            revoked_keys.c.fingerprint == revocations.c.fingerprint,
        )
    )
    return (
        select(revocations.c.server_id, revocations.c.fingerprint, servers.c.workspace_id)
        .join(servers, servers.c.id == revocations.c.server_id)
        .where(
            revocations.c.acknowledged_at < before,
            revocations.c.revoked_at < before,
            ~statement.exists(),
            ~everywhere.exists(),
        )
    )


def _deleted_servers(before: datetime) -> Select[Any]:
    return select(deleted_servers.c.server_id, deleted_servers.c.workspace_id).where(
        deleted_servers.c.deleted_at < before
    )


def _expired_keys(before: datetime) -> Select[Any]:
    return select(
        expired_keys.c.workspace_id, expired_keys.c.fingerprint, expired_keys.c.workspace_id.label("of")
    ).where(expired_keys.c.expired_at < before)


def _requests(before: datetime) -> Select[Any]:
    """Requests that are decided and have no open grant."""
    closed = access_requests.c.state.not_in((PENDING, APPROVED))
    return select(access_requests.c.id, access_requests.c.workspace_id).where(
        closed, access_requests.c.decided_at < before
    )


def _freezes(before: datetime) -> Select[Any]:
    return select(freezes.c.id, freezes.c.workspace_id).where(freezes.c.ended_at < before)


def _offboardings(before: datetime) -> Select[Any]:
    return select(offboardings.c.id, offboardings.c.workspace_id).where(offboardings.c.undo_until < before)


KINDS: dict[str, ExpiringRows] = {
    "events": ExpiringRows(events, (events.c.id,), _events),
    "IAM tokens": ExpiringRows(tokens, (tokens.c.id,), _ended_tokens(tokens.c.kind == "iam")),
    "other ended tokens": ExpiringRows(tokens, (tokens.c.id,), _ended_tokens(tokens.c.kind != "iam")),
    "temporary access keys": ExpiringRows(access_keys, (access_keys.c.id,), _temporary_access_keys),
    "failed signatures": ExpiringRows(
        access_key_failures, (access_key_failures.c.access_key_id, access_key_failures.c.address), _failures
    ),
    "enrolment tokens": ExpiringRows(enrolments, (enrolments.c.id,), _enrolments),
    "last uses": ExpiringRows(key_uses, (key_uses.c.fingerprint, key_uses.c.server_id), _key_uses),
    "revocations": ExpiringRows(revocations, (revocations.c.server_id, revocations.c.fingerprint), _revocations),
    "ended keys": ExpiringRows(expired_keys, (expired_keys.c.workspace_id, expired_keys.c.fingerprint), _expired_keys),
    "requests for access": ExpiringRows(access_requests, (access_requests.c.id,), _requests),
    "freezes": ExpiringRows(freezes, (freezes.c.id,), _freezes),
    "offboardings": ExpiringRows(offboardings, (offboardings.c.id,), _offboardings),
    "deleted servers": ExpiringRows(deleted_servers, (deleted_servers.c.server_id,), _deleted_servers),
}


@prepared
def _newest_event(before: datetime) -> Select[Any]:
    return select(events.c.at).where(events.c.at < before).order_by(events.c.id.desc()).limit(1)


def newest_event(connection: Connection, before: datetime) -> datetime | None:
    """The time of the newest event, by id, that is from before a time, or None."""
    return next((row.at for row in _newest_event.rows(connection, before)), None)


def count(connection: Connection, kind: str, before: datetime) -> int:
    """How many rows of a kind are from before a time."""
    statement = KINDS[kind].old(before).order_by(None).subquery()
    return int(connection.execute(select(func.count()).select_from(statement)).scalar_one())


def outdated(connection: Connection, kind: str, before: datetime, limit: int) -> list[tuple[Any, ...]]:
    """Rows of a kind from before a time, at most `limit`: the key of each, then the id of its workspace."""
    if kind == "events":
        # Events are in the order of their times but for those from a wrong clock, so the first ones suffice; to search
        # by time would read the whole log.
        first = select(events.c.id, events.c.workspace_id, events.c.at).order_by(events.c.id).limit(FIRST).subquery()
        too_old = select(first.c.id, first.c.workspace_id).where(first.c.at < before).limit(limit)
        return sorted(tuple(row) for row in connection.execute(too_old))
    return [tuple(row) for row in connection.execute(KINDS[kind].old(before).limit(limit))]


def kept_among(connection: Connection, removed: Sequence[int]) -> list[tuple[int, int]]:
    """The events that stayed before the last one removed in this transaction, as ranges without a removed one between:
    first and last id of each. removed: ids, ascending.
    """
    kept: list[tuple[int, int]] = []
    at = part = 0
    before = select(events.c.id).where(events.c.id < removed[-1]).order_by(events.c.id)
    for number in connection.execute(before).scalars():
        at = bisect(removed, number, at)
        if kept and at == part:
            kept[-1] = (kept[-1][0], number)
        else:
            kept.append((number, number))
        part = at
    return kept


def remove(
    connection: Connection, kind: str, before: datetime, rows: Sequence[tuple[Any, ...]]
) -> set[tuple[Any, ...]]:
    """Delete those of these rows that are still from before a time; answers the keys of the deleted ones."""
    chosen = KINDS[kind]
    keys = [row[:-1] for row in rows]
    named = _with_keys(chosen, keys)
    still = {tuple(row)[:-1] for row in connection.execute(chosen.old(before).where(named))}
    if chosen.table is revocations and still:
        # Where others wrote that it is acknowledged, the host is asked for it again, however old the revocation is.
        held = connection.execute(select(revocations).where(named)).mappings()
        proved = (row for row in map(dict, held) if receipts.when(connection, revocations, row) is not None)
        still &= {(row["server_id"], row["fingerprint"]) for row in proved}
    if still:
        named = _with_keys(chosen, list(still))
        if chosen.table.name in VOLATILE:
            sealed.remove(connection, chosen.table, named)
        else:
            connection.execute(delete(chosen.table).where(named))
    return still


def _with_keys(of: ExpiringRows, keys: Sequence[tuple[Any, ...]]) -> ColumnElement[bool]:
    """A condition: the row has one of these keys."""
    return tuple_(*of.key).in_(keys) if len(of.key) > 1 else of.key[0].in_([key[0] for key in keys])
