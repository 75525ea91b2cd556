"""Questions whose answers change when something moves that an open page shows; must decide nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Select, select

from keyrack.store.engine.prepared import Row, among, prepared
from keyrack.store.tables import access_requests, servers, sessions, user_keys

NEWEST = 100
"""How many of the newest requests are read."""


def states(connection: Connection, server_ids: Sequence[int]) -> list[Row]:
    """The states of servers: id, workspace_id, revision, applied_revision, enrolled_at, mode, copied_at, seen_at."""
    return list(_states.rows(connection, server_ids))


@prepared
def _states(server_ids: Sequence[int]) -> Select[Any]:
    of = (
        servers.c.id,
        servers.c.workspace_id,
        servers.c.revision,
        servers.c.applied_revision,
        servers.c.enrolled_at,
        servers.c.mode,
        servers.c.copied_at,
    )
    return select(*of, servers.c.seen_at).where(among(servers.c.id, server_ids))


def facts_of(connection: Connection, server_ids: Sequence[int]) -> list[Row]:
    """The facts that hosts reported: id, workspace_id, facts."""
    return list(_facts_of.rows(connection, server_ids))


@prepared
def _facts_of(server_ids: Sequence[int]) -> Select[Any]:
    return select(servers.c.id, servers.c.workspace_id, servers.c.facts).where(among(servers.c.id, server_ids))


def logins(connection: Connection, server_ids: Sequence[int]) -> list[Row]:
    """The open logins on servers: id, server_id, ending."""
    return list(_logins.rows(connection, server_ids))


@prepared
def _logins(server_ids: Sequence[int]) -> Select[Any]:
    statement = select(sessions.c.id, sessions.c.server_id, sessions.c.ending)
    return statement.where(among(sessions.c.server_id, server_ids)).order_by(sessions.c.id)


def keys(connection: Connection, user_id: int) -> list[Row]:
    """A user's keys: id, fingerprint, expires_at, confirmed_at, frozen_at."""
    return list(_keys.rows(connection, user_id))


@prepared
def _keys(user_id: int) -> Select[Any]:
    statement = select(
        user_keys.c.id, user_keys.c.fingerprint, user_keys.c.expires_at, user_keys.c.confirmed_at, user_keys.c.frozen_at
    )
    return statement.where(user_keys.c.user_id == user_id).order_by(user_keys.c.id)


def requests(connection: Connection, workspace_id: int, user_id: int | None) -> list[Row]:
    """The newest requests of a workspace, or of one user, at most NEWEST: id, state."""
    return list(_requests.rows(connection, workspace_id, user_id))


@prepared
def _requests(workspace_id: int, user_id: int | None) -> Select[Any]:
    statement = select(access_requests.c.id, access_requests.c.state).where(
        access_requests.c.workspace_id == workspace_id
    )
    if user_id is not None:
        statement = statement.where(access_requests.c.user_id == user_id)
    return statement.order_by(access_requests.c.id.desc()).limit(NEWEST)
