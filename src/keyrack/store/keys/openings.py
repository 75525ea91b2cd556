"""Questions about what lets a key in beside an entry that is looked at; must decide nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, or_, select

from keyrack.store.engine.prepared import prepared
from keyrack.store.keys.grants import applies
from keyrack.store.keys.terms import in_force
from keyrack.store.tables import (
    credentials,
    grants,
    group_members,
    servers,
    system_users,
    unmanaged_keys,
    user_keys,
    users,
)

MOST = 20


@dataclass(frozen=True, slots=True)
class Opening:
    """A reason for which an account takes a key. kind: "credential", "grant", or "file" for one found on the host.

    name: the credential's label, the name of the user whom the grant is for, or the file's path.
    """

    kind: str
    id: int
    name: str
    server_name: str
    username: str


def of_account(
    connection: Connection, *, workspace_id: int, server_id: int, username: str, fingerprint: str, at: datetime
) -> tuple[Opening, ...]:
    """What lets a key into an account of a server, at most MOST of each kind."""
    openings = [*_entries(connection, workspace_id, fingerprint, at, server_id, username)]
    granted = (
        select(grants.c.id, users.c.name)
        .distinct()
        .select_from(grants)
        .outerjoin(group_members, group_members.c.group_id == grants.c.group_id)
        .join(users, or_(users.c.id == grants.c.user_id, users.c.id == group_members.c.user_id))
        .join(user_keys, user_keys.c.user_id == users.c.id)
        .where(
            user_keys.c.fingerprint == fingerprint,
            in_force(user_keys.c.expires_at, at),
            users.c.disabled_at.is_(None),
            grants.c.system_user == username,
            applies(server_id, workspace_id, at),
        )
        .order_by(grants.c.id)
        .limit(MOST)
    )
    name = connection.execute(select(servers.c.name).where(servers.c.id == server_id)).scalar_one()
    openings += [Opening("grant", row.id, row.name, name, username) for row in connection.execute(granted)]
    return tuple(openings)


def of_workspace(connection: Connection, *, workspace_id: int, fingerprint: str, at: datetime) -> tuple[Opening, ...]:
    """Where a key is let in as itself, whoever's it is: credentials and files, at most MOST of each kind."""
    return tuple(_entries(connection, workspace_id, fingerprint, at))


def _entries(
    connection: Connection,
    workspace_id: int,
    fingerprint: str,
    at: datetime,
    server_id: int | None = None,
    username: str | None = None,
) -> list[Opening]:
    credential = (
        select(credentials.c.id, credentials.c.label, servers.c.name, system_users.c.username)
        .join(system_users, system_users.c.id == credentials.c.system_user_id)
        .join(servers, servers.c.id == credentials.c.server_id)
        .where(
            credentials.c.fingerprint == fingerprint,
            servers.c.workspace_id == workspace_id,
            in_force(credentials.c.expires_at, at),
        )
        .order_by(credentials.c.id)
        .limit(MOST)
    )
    file = (
        select(unmanaged_keys.c.id, unmanaged_keys.c.path, servers.c.name, unmanaged_keys.c.username)
        .join(servers, servers.c.id == unmanaged_keys.c.server_id)
        .where(
            unmanaged_keys.c.fingerprint == fingerprint,
            servers.c.workspace_id == workspace_id,
            unmanaged_keys.c.in_force,
            unmanaged_keys.c.state != "gone",
        )
        .order_by(unmanaged_keys.c.id)
        .limit(MOST)
    )
    if server_id is not None:
        # See _credential_lets_in.
        credential = credential.where(credentials.c.server_id + 0 == server_id, system_users.c.username == username)
        file = file.where(unmanaged_keys.c.server_id == server_id, unmanaged_keys.c.username.in_((username, "*")))
    return [
        *(Opening("credential", row[0], row[1], row[2], row[3]) for row in connection.execute(credential)),
        *(Opening("file", row[0], row[1], row[2], row[3]) for row in connection.execute(file)),
    ]


def still_opens(connection: Connection, server_id: int, workspace_id: int, fingerprint: str, at: datetime) -> bool:
    """Whether anything on a server lets this key in."""
    return (
        _credential_lets_in.row(connection, server_id, fingerprint, at) is not None
        or _grant_lets_in.row(connection, server_id, workspace_id, fingerprint, at) is not None
    )


@prepared
def _credential_lets_in(server_id: int, fingerprint: str, at: datetime) -> Select[Any]:
    statement = select(credentials.c.id).where(
        # The sum keeps SQLite from going through all keys of the server: those of one fingerprint are few.
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
    statement = (
        select(grants.c.id)
        .outerjoin(group_members, group_members.c.group_id == grants.c.group_id)
        .join(users, or_(users.c.id == grants.c.user_id, users.c.id == group_members.c.user_id))
        .where(users.c.id.in_(owner), users.c.disabled_at.is_(None), applies(server_id, workspace_id, at))
    )
    return statement.limit(1)
