"""Reads all keys of a workspace, some at a time, with their owners and last uses; must decide nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, Select, func, or_, select

from keyrack.store.engine.prepared import Row, among, prepared
from keyrack.store.keys.uses import GIT
from keyrack.store.tables import credentials, key_uses, servers, system_users, user_keys, users


@dataclass(frozen=True, slots=True)
class KeyAtPlace:
    """A credential or a user's key. kind: "credential" or "user key"; name: its label or title; user: whose it is, None
    if unknown; disabled: whether that user is disabled; used_at: when a credential was last used on its server, a
    user's key on any server of the workspace or with Git.
    """

    kind: Literal["credential", "user key"]
    id: int
    fingerprint: str
    public_key: str
    key_type: str
    name: str
    user: str | None
    disabled: bool
    server: str | None
    server_id: int | None
    username: str | None
    created_at: datetime
    expires_at: datetime | None
    used_at: datetime | None


@prepared
def _credentials(workspace_id: int, server_id: int, after: int, limit: int) -> Select[Any]:
    # In the order of an index, so that no page sorts all keys of the workspace.
    return (
        select(credentials, system_users.c.username, servers.c.name.label("server_name"))
        .join(servers, servers.c.id == credentials.c.server_id)
        .join(system_users, system_users.c.id == credentials.c.system_user_id)
        .where(servers.c.workspace_id == workspace_id, servers.c.id >= server_id)
        .where(or_(servers.c.id > server_id, credentials.c.id > after))
        .order_by(servers.c.id, credentials.c.id)
        .limit(limit)
    )


@prepared
def _owners(workspace_id: int, fingerprints: Sequence[str]) -> Select[Any]:
    statement = select(user_keys.c.fingerprint, users.c.name, users.c.disabled_at)
    mine = (user_keys.c.workspace_id == workspace_id, among(user_keys.c.fingerprint, fingerprints))
    return statement.join(users, users.c.id == user_keys.c.user_id).where(*mine)


@prepared
def _uses(fingerprints: Sequence[str]) -> Select[Any]:
    return select(key_uses).where(among(key_uses.c.fingerprint, fingerprints))


def credentials_after(
    connection: Connection, workspace_id: int, server_id: int, after: int, limit: int
) -> list[KeyAtPlace]:
    """The credentials of a workspace after a place, in the order of server ids and ids; server_id, after: server and id
    of the credential before; at most `limit`.
    """
    rows = _credentials.rows(connection, workspace_id, server_id, after, limit)
    prints = sorted({row.fingerprint for row in rows})
    owners = {row.fingerprint: row for row in _owners.rows(connection, workspace_id, prints)} if prints else {}
    uses = (
        {(row.fingerprint, row.server_id): row.last_used_at for row in _uses.rows(connection, prints)} if prints else {}
    )
    return [_credential(row, owners.get(row.fingerprint), uses.get((row.fingerprint, row.server_id))) for row in rows]


def _credential(row: Row, owner: Row | None, used_at: datetime | None) -> KeyAtPlace:
    return KeyAtPlace(
        kind="credential",
        id=row.id,
        fingerprint=row.fingerprint,
        public_key=row.public_key,
        key_type=row.key_type,
        name=row.label,
        user=owner.name if owner else None,
        disabled=bool(owner and owner.disabled_at is not None),
        server=row.server_name,
        server_id=row.server_id,
        username=row.username,
        created_at=row.created_at,
        expires_at=row.expires_at,
        used_at=used_at,
    )


@prepared
def _user_keys(workspace_id: int, after: int, limit: int) -> Select[Any]:
    return (
        select(user_keys, users.c.name.label("user_name"), users.c.disabled_at)
        .join(users, users.c.id == user_keys.c.user_id)
        .where(user_keys.c.workspace_id == workspace_id, user_keys.c.id > after)
        # A row with only one of the two was altered by others; altered rows are listed elsewhere.
        .where(user_keys.c.public_key.is_not(None), user_keys.c.fingerprint.is_not(None))
        .order_by(user_keys.c.id)
        .limit(limit)
    )


@prepared
def _newest_uses(workspace_id: int, fingerprints: Sequence[str]) -> Select[Any]:
    newest = func.max(key_uses.c.last_used_at).label("last_used_at")
    statement = select(key_uses.c.fingerprint, newest).outerjoin(servers, servers.c.id == key_uses.c.server_id)
    here = or_(servers.c.workspace_id == workspace_id, key_uses.c.server_id == GIT)
    return statement.where(among(key_uses.c.fingerprint, fingerprints), here).group_by(key_uses.c.fingerprint)


def user_keys_after(connection: Connection, workspace_id: int, after: int, limit: int) -> list[KeyAtPlace]:
    """The keys of a workspace's users with an id above `after`, at most `limit`."""
    rows = _user_keys.rows(connection, workspace_id, after, limit)
    prints = sorted({row.fingerprint for row in rows})
    uses = (
        {row.fingerprint: row.last_used_at for row in _newest_uses.rows(connection, workspace_id, prints)}
        if prints
        else {}
    )
    return [
        KeyAtPlace(
            kind="user key",
            id=row.id,
            fingerprint=row.fingerprint,
            public_key=row.public_key,
            key_type=row.key_type,
            name=row.title or "",
            user=row.user_name,
            disabled=row.disabled_at is not None,
            server=None,
            server_id=None,
            username=None,
            created_at=row.created_at,
            expires_at=row.expires_at,
            used_at=uses.get(row.fingerprint),
        )
        for row in rows
    ]
