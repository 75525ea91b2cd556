"""Questions about keys that have expired in a workspace; must decide nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Column, ColumnElement, CompoundSelect, Connection, Select, select, union_all

from keyrack.store.engine.prepared import among, prepared
from keyrack.store.sealing import sealed
from keyrack.store.tables import credentials, expired_keys, servers, user_keys


@dataclass(frozen=True, slots=True)
class EndedKey:
    """A user's key that has expired, with the title that it had."""

    title: str
    fingerprint: str
    expired_at: datetime


def add(
    connection: Connection,
    workspace_id: int,
    fingerprint: str,
    at: datetime,
    *,
    user_id: int | None = None,
    title: str | None = None,
) -> None:
    """Note that a key has expired; an earlier note stays as it is. user_id, title: whose it was, and its title."""
    values = {"workspace_id": workspace_id, "fingerprint": fingerprint, "expired_at": at}
    values |= {"user_id": user_id, "title": title}
    sealed.insert_new(connection, expired_keys, values)


class EndSource(NamedTuple):
    """A table with ends of keys: its columns of the fingerprint and of the end, and the conditions on its rows."""

    fingerprint: Column[Any]
    expired_at: Column[Any]
    conditions: tuple[ColumnElement[bool], ...]


def ends(workspace_id: int, at: datetime) -> tuple[EndSource, ...]:
    """The tables that tell which keys have expired in a workspace. Arguments may be those of a prepared question."""
    # An alias: in a question that also names `servers`, it would be that one server.
    any_server = servers.alias("any_server")
    # Keys that ended a moment ago are not noted in expired_keys yet. The end of a temporary key does not count.
    of_servers = (
        any_server.c.id == credentials.c.server_id,
        any_server.c.workspace_id == workspace_id,
        credentials.c.expires_at <= at,
        credentials.c.temporary.is_(False),
    )
    of_users = (user_keys.c.workspace_id == workspace_id, user_keys.c.expires_at <= at)
    noted = (expired_keys.c.workspace_id == workspace_id,)
    return (
        EndSource(expired_keys.c.fingerprint, expired_keys.c.expired_at, noted),
        EndSource(credentials.c.fingerprint, credentials.c.expires_at, of_servers),
        EndSource(user_keys.c.fingerprint, user_keys.c.expires_at, of_users),
    )


@prepared
def _ends(workspace_id: int, fingerprints: Sequence[str], at: datetime) -> CompoundSelect[Any]:
    return union_all(
        *(
            select(source.expired_at).where(among(source.fingerprint, fingerprints), *source.conditions)
            for source in ends(workspace_id, at)
        )
    )


def end_of(connection: Connection, workspace_id: int, fingerprint: str, at: datetime) -> datetime | None:
    """When a key expired in a workspace, the last time if several; None if never. Temporary keys do not count."""
    return max(_ends.values(connection, workspace_id, (fingerprint,), at), default=None)


@prepared
def _of_user(user_id: int, since: datetime, limit: int) -> Select[Any]:
    statement = select(expired_keys.c.title, expired_keys.c.fingerprint, expired_keys.c.expired_at).where(
        expired_keys.c.user_id == user_id
    )
    return statement.where(expired_keys.c.expired_at >= since).order_by(expired_keys.c.expired_at.desc()).limit(limit)


def of_user(connection: Connection, user_id: int, since: datetime, limit: int) -> tuple[EndedKey, ...]:
    """A user's keys that have expired since an instant, the latest first, at most `limit`."""
    rows = _of_user.rows(connection, user_id, since, limit)
    return tuple(EndedKey(row.title or "", row.fingerprint, row.expired_at) for row in rows)
