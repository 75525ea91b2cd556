"""Questions about what lets a key log in: credentials, grants and files on hosts; must decide nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, or_, select

from keyrack.store.engine.prepared import Row, among, prepared
from keyrack.store.keys.grants import applies, with_users
from keyrack.store.keys.terms import in_force
from keyrack.store.tables import (
    credentials,
    grants,
    servers,
    system_users,
    unmanaged_keys,
    user_keys,
    users,
)

MAX = 20


@dataclass(frozen=True, slots=True)
class Opening:
    """A reason why a key may log in as a system user. kind: "credential", "grant", or "file" for an unmanaged key.

    id: of the credential, grant or unmanaged key; name: the credential's label, the name of the grant's user, or the
    file's path.
    """

    kind: str
    id: int
    name: str
    server_id: int
    server_name: str
    username: str


def of_account(
    connection: Connection, *, workspace_id: int, server_id: int, username: str, fingerprint: str, at: datetime
) -> tuple[Opening, ...]:
    """What lets a key into an account of a server, at most MAX of each kind."""
    openings = [*_entries(connection, workspace_id, fingerprint, at, server_id, username)]
    granted = _grants_for.rows(connection, workspace_id, server_id, username, fingerprint, at)
    openings += [Opening("grant", row.id, row.owner, server_id, row.server_name, username) for row in granted]
    return tuple(openings)


def files_of_accounts(
    connection: Connection, server_ids: Sequence[int], username: str, fingerprints: Sequence[str]
) -> dict[tuple[int, str], tuple[Opening, ...]]:
    """The files that of_account finds, for several servers and keys in one question: by server id and fingerprint."""
    openings: dict[tuple[int, str], tuple[Opening, ...]] = {}
    for row in _files_of_many.rows(connection, server_ids, username, fingerprints):
        place = (row.server_id, row.fingerprint)
        opening = Opening("file", row.id, row.path, row.server_id, row.server_name, row.username)
        openings[place] = (*openings.get(place, ()), opening)[:MAX]
    return openings


def of_workspace(connection: Connection, *, workspace_id: int, fingerprint: str, at: datetime) -> tuple[Opening, ...]:
    """The credentials and files in a workspace that let a key in, at most MAX of each; grants are left out, as they are
    for users and not for keys.
    """
    return tuple(_entries(connection, workspace_id, fingerprint, at))


def _entries(
    connection: Connection,
    workspace_id: int,
    fingerprint: str,
    at: datetime,
    server_id: int | None = None,
    username: str | None = None,
) -> list[Opening]:
    credential_rows = _credentials_for.rows(connection, workspace_id, fingerprint, at, server_id, username)
    file_rows = _files_for.rows(connection, workspace_id, fingerprint, server_id, username)
    return [
        *(_opening("credential", row, row.label) for row in credential_rows),
        *(_opening("file", row, row.path) for row in file_rows),
    ]


def _opening(kind: str, row: Row, name: str) -> Opening:
    return Opening(kind, row.id, name, row.server_id, row.server_name, row.username)


@prepared
def _grants_for(workspace_id: int, server_id: int, username: str, fingerprint: str, at: datetime) -> Select[Any]:
    return (
        with_users(select(grants.c.id, users.c.name.label("owner"), servers.c.name.label("server_name")).distinct())
        .join(user_keys, user_keys.c.user_id == users.c.id)
        .join(servers, servers.c.id == server_id)
        .where(
            user_keys.c.fingerprint == fingerprint,
            in_force(user_keys.c.expires_at, at),
            users.c.disabled_at.is_(None),
            grants.c.system_user == username,
            applies(server_id, workspace_id, at),
        )
        .order_by(grants.c.id)
        .limit(MAX)
    )


@prepared
def _credentials_for(
    workspace_id: int, fingerprint: str, at: datetime, server_id: int | None, username: str | None
) -> Select[Any]:
    query = (
        select(
            credentials.c.id,
            credentials.c.label,
            credentials.c.server_id,
            servers.c.name.label("server_name"),
            system_users.c.username,
        )
        .join(system_users, system_users.c.id == credentials.c.system_user_id)
        .join(servers, servers.c.id == credentials.c.server_id)
        .where(
            credentials.c.fingerprint == fingerprint,
            servers.c.workspace_id == workspace_id,
            in_force(credentials.c.expires_at, at),
        )
        .order_by(credentials.c.id)
        .limit(MAX)
    )
    if server_id is not None:
        # "+ 0" as in _credential_lets_in.
        query = query.where(credentials.c.server_id + 0 == server_id, system_users.c.username == username)
    return query


@prepared
def _files_for(workspace_id: int, fingerprint: str, server_id: int | None, username: str | None) -> Select[Any]:
    query = (
        select(
            unmanaged_keys.c.id,
            unmanaged_keys.c.path,
            unmanaged_keys.c.server_id,
            servers.c.name.label("server_name"),
            unmanaged_keys.c.username,
        )
        .join(servers, servers.c.id == unmanaged_keys.c.server_id)
        .where(
            unmanaged_keys.c.fingerprint == fingerprint,
            servers.c.workspace_id == workspace_id,
            unmanaged_keys.c.in_force,
            unmanaged_keys.c.state != "gone",
        )
        .order_by(unmanaged_keys.c.id)
        .limit(MAX)
    )
    if server_id is not None:
        whose = or_(unmanaged_keys.c.username == username, unmanaged_keys.c.username == "*")
        query = query.where(unmanaged_keys.c.server_id == server_id, whose)
    return query


@prepared
def _files_of_many(server_ids: Sequence[int], username: str, fingerprints: Sequence[str]) -> Select[Any]:
    columns = (
        unmanaged_keys.c.id,
        unmanaged_keys.c.path,
        unmanaged_keys.c.username,
        unmanaged_keys.c.server_id,
        unmanaged_keys.c.fingerprint,
        servers.c.name.label("server_name"),
    )
    return (
        select(*columns)
        .join(servers, servers.c.id == unmanaged_keys.c.server_id)
        .where(
            among(unmanaged_keys.c.fingerprint, fingerprints),
            among(unmanaged_keys.c.server_id, server_ids),
            or_(unmanaged_keys.c.username == username, unmanaged_keys.c.username == "*"),
            unmanaged_keys.c.in_force,
            unmanaged_keys.c.state != "gone",
        )
        .order_by(unmanaged_keys.c.id)
    )


def still_opens(connection: Connection, server_id: int, workspace_id: int, fingerprint: str, at: datetime) -> bool:
    """Whether a credential or a grant lets this key in on a server, as any system user."""
    return (
        _credential_lets_in.row(connection, server_id, fingerprint, at) is not None
        or _grant_lets_in.row(connection, server_id, workspace_id, fingerprint, at) is not None
    )


@prepared
def _credential_lets_in(server_id: int, fingerprint: str, at: datetime) -> Select[Any]:
    statement = select(credentials.c.id).where(
        # "+ 0" keeps SQLite from reading all keys of the server by its index: those with one fingerprint are few.
        credentials.c.server_id + 0 == server_id,
        credentials.c.fingerprint == fingerprint,
        in_force(credentials.c.expires_at, at),
    )
    return statement.limit(1)


@prepared
def _grant_lets_in(server_id: int, workspace_id: int, fingerprint: str, at: datetime) -> Select[Any]:
    owner = select(user_keys.c.user_id).where(
        user_keys.c.fingerprint == fingerprint, in_force(user_keys.c.expires_at, at)
    )
    statement = with_users(select(grants.c.id)).where(
        users.c.id.in_(owner), users.c.disabled_at.is_(None), applies(server_id, workspace_id, at)
    )
    return statement.limit(1)
