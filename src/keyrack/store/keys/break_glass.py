"""Questions about break-glass keys on a server; must decide nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, select

from keyrack.store.engine.prepared import among, prepared
from keyrack.store.keys import key_owners
from keyrack.store.keys.grants import applies, with_users
from keyrack.store.tables import (
    credentials,
    grants,
    key_uses,
    sessions,
    system_users,
    user_keys,
    users,
)


@dataclass(frozen=True, slots=True)
class BreakGlassKey:
    """A break-glass key on one account. kind, id: "credential" or "grant" and its id; name: the credential's label, or
    the title of the user's key; user: whose key it is, None if unknown.
    """

    fingerprint: str
    username: str
    kind: str
    id: int
    name: str
    user: str | None


@prepared
def _credentials(server_id: int, fingerprints: Sequence[str]) -> Select[Any]:
    return (
        select(credentials.c.fingerprint, system_users.c.username, credentials.c.id, credentials.c.label)
        .join(system_users, system_users.c.id == credentials.c.system_user_id)
        .where(
            credentials.c.server_id == server_id,
            among(credentials.c.fingerprint, fingerprints),
            credentials.c.break_glass.is_not(None),
        )
    )


@prepared
def _grants(server_id: int, workspace_id: int, fingerprints: Sequence[str], at: datetime) -> Select[Any]:
    of = (user_keys.c.fingerprint, grants.c.system_user, grants.c.id, user_keys.c.title, users.c.name)
    return (
        with_users(select(*of))
        .join(user_keys, user_keys.c.user_id == users.c.id)
        .where(
            grants.c.break_glass.is_not(None),
            applies(server_id, workspace_id, at),
            among(user_keys.c.fingerprint, fingerprints),
        )
    )


def of_keys(
    connection: Connection, server_id: int, workspace_id: int, fingerprints: Sequence[str], at: datetime
) -> dict[tuple[str, str], BreakGlassKey]:
    """Those of these keys that are break-glass keys on a server, by fingerprint and account."""
    keys = [
        BreakGlassKey(row.fingerprint, row.system_user, "grant", row.id, row.title or "", row.name)
        for row in _grants.rows(connection, server_id, workspace_id, fingerprints, at)
    ]
    held = _credentials.rows(connection, server_id, fingerprints)
    if held:
        whose = key_owners.names(connection, workspace_id, fingerprints)
        keys += [
            BreakGlassKey(row.fingerprint, row.username, "credential", row.id, row.label, whose.get(row.fingerprint))
            for row in held
        ]
    return {(one.fingerprint, one.username): one for one in keys}


@prepared
def _uses(server_id: int, fingerprints: Sequence[str]) -> Select[Any]:
    statement = select(key_uses.c.fingerprint, key_uses.c.last_used_at)
    return statement.where(key_uses.c.server_id == server_id, among(key_uses.c.fingerprint, fingerprints))


def last_uses(connection: Connection, server_id: int, fingerprints: Sequence[str]) -> dict[str, datetime]:
    """When these keys were last used on a server, as far as it is known."""
    return {row.fingerprint: row.last_used_at for row in _uses.rows(connection, server_id, fingerprints)}


@prepared
def _session(server_id: int, fingerprint: str, username: str, address: str) -> Select[Any]:
    named = (sessions.c.server_id == server_id, sessions.c.fingerprint == fingerprint)
    statement = select(sessions.c.id).where(*named, sessions.c.username == username, sessions.c.address == address)
    return statement.order_by(sessions.c.id.desc()).limit(1)


def session(connection: Connection, server_id: int, fingerprint: str, username: str, address: str) -> int | None:
    """The newest open session with a key as an account from an address, or None."""
    session_id = _session.value(connection, server_id, fingerprint, username, address)
    return None if session_id is None else int(session_id)
