"""Questions about freezes, and the marks that they leave on servers and keys; must decide nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, insert, select, update

from keyrack.store.chunks import chunks
from keyrack.store.engine.prepared import Row, among, prepared
from keyrack.store.sealing import sealed_sets
from keyrack.store.sealing.sums import BATCH_SIZE
from keyrack.store.tables import credentials, freezes, servers, system_users, user_keys, users


@dataclass(frozen=True, slots=True)
class Freeze:
    """A freeze of keys, which then open no new session: of a user (user_id), on a server (server_id), or of the whole
    workspace where both are None.

    keys: how many it froze; revisions: by id (as text) the revision of each server concerned; ended_at, ended_by: when
    and by whom it was ended; user, server: their names, where a question reads them.
    """

    id: int
    workspace_id: int
    user_id: int | None
    server_id: int | None
    reason: str
    asked_by: str
    at: datetime
    keys: int
    revisions: Mapping[str, int]
    ended_at: datetime | None
    ended_by: str | None
    user: str | None = None
    server: str | None = None


def add(connection: Connection, values: Mapping[str, Any]) -> int:
    """Insert a freeze (the columns of the table); answers its id."""
    return int(connection.execute(insert(freezes).values(values).returning(freezes.c.id)).scalar_one())


@prepared
def _find(workspace_id: int, freeze_id: int | None, before: int | None, limit: int) -> Select[Any]:
    statement = select(freezes, users.c.name.label("user"), servers.c.name.label("server"))
    statement = statement.outerjoin(users, users.c.id == freezes.c.user_id)
    statement = statement.outerjoin(servers, servers.c.id == freezes.c.server_id)
    statement = statement.where(freezes.c.workspace_id == workspace_id).order_by(freezes.c.id.desc()).limit(limit)
    if freeze_id is not None:
        statement = statement.where(freezes.c.id == freeze_id)
    return statement if before is None else statement.where(freezes.c.id < before)


def find(connection: Connection, workspace_id: int, before: int | None, limit: int) -> tuple[Freeze, ...]:
    """The freezes of a workspace, newest first; before: only those with a smaller id."""
    return tuple(_freeze(row) for row in _find.rows(connection, workspace_id, None, before, limit))


def get(connection: Connection, workspace_id: int, freeze_id: int) -> Freeze | None:
    """A freeze of this workspace, or None."""
    row = _find.row(connection, workspace_id, freeze_id, None, 1)
    return None if row is None else _freeze(row)


@prepared
def _active(workspace_id: int) -> Select[Any]:
    statement = select(freezes).where(freezes.c.workspace_id == workspace_id, freezes.c.ended_at.is_(None))
    return statement.order_by(freezes.c.id)


def active(connection: Connection, workspace_id: int) -> tuple[Freeze, ...]:
    """The freezes of a workspace that have not been ended, oldest first."""
    return tuple(_freeze(row) for row in _active.rows(connection, workspace_id))


def end(connection: Connection, freeze_id: int, at: datetime, by: str) -> None:
    """Note that somebody ended a freeze."""
    connection.execute(update(freezes).where(freezes.c.id == freeze_id).values(ended_at=at, ended_by=by))


@prepared
def _servers(workspace_id: int, server_id: int | None) -> Select[Any]:
    statement = select(servers.c.id).where(servers.c.workspace_id == workspace_id)
    return statement if server_id is None else statement.where(servers.c.id == server_id)


def servers_of(connection: Connection, workspace_id: int, server_id: int | None = None) -> list[int]:
    """The ids of a workspace's servers; server_id: only of this one."""
    return _servers.values(connection, workspace_id, server_id)


@prepared
def _user_keys(workspace_id: int, user_id: int | None) -> Select[Any]:
    statement = select(user_keys).where(user_keys.c.workspace_id == workspace_id, user_keys.c.public_key.is_not(None))
    return statement if user_id is None else statement.where(user_keys.c.user_id == user_id)


def user_keys_of(connection: Connection, workspace_id: int, user_id: int | None = None) -> list[Row]:
    """The rows of all users' keys of a workspace, or of one user's."""
    return _user_keys.rows(connection, workspace_id, user_id)


@prepared
def _credentials_of_keys(workspace_id: int, fingerprints: Sequence[str]) -> Select[Any]:
    return (
        select(credentials)
        .join(servers, servers.c.id == credentials.c.server_id)
        .where(among(credentials.c.fingerprint, fingerprints), servers.c.workspace_id == workspace_id)
    )


def credentials_of_keys(connection: Connection, workspace_id: int, fingerprints: Iterable[str]) -> list[Row]:
    """The rows of a workspace's credentials with one of these keys."""
    rows: list[Row] = []
    for some in chunks(fingerprints, BATCH_SIZE):
        rows += _credentials_of_keys.rows(connection, workspace_id, some)
    return rows


@prepared
def _credentials_of_servers(server_ids: Iterable[int]) -> Select[Any]:
    return select(credentials).where(among(credentials.c.server_id, server_ids))


def credentials_of_servers(connection: Connection, server_ids: Iterable[int]) -> list[Row]:
    """The rows of all credentials of these servers."""
    return _credentials_of_servers.rows(connection, sorted(server_ids))


def mark_servers(
    connection: Connection, server_ids: Iterable[int], at: datetime | None, *, only_free: bool = False
) -> None:
    """Set since when keys are frozen on these servers (None: no longer); only_free: not where it is set already."""
    rows = sealed_sets.locked_servers(connection, server_ids)
    if only_free:
        rows = [row for row in rows if row["frozen_at"] is None]
    sealed_sets.change_servers(connection, rows, lambda _: {"frozen_at": at})


def mark_user_keys(connection: Connection, rows: Iterable[Row], at: datetime | None) -> None:
    """Set since when these user keys are frozen; None: no longer."""
    sealed_sets.change_many(connection, user_keys, rows, lambda _: {"frozen_at": at})


def mark_credentials(connection: Connection, rows: Iterable[Row], at: datetime | None) -> None:
    """Set since when these credentials are frozen; None: no longer."""
    sealed_sets.change_many(connection, credentials, rows, lambda _: {"frozen_at": at})


def confirm(connection: Connection, keys: Iterable[Row], held: Iterable[Row], at: datetime) -> None:
    """Note that somebody confirmed these user keys and credentials."""
    sealed_sets.change_many(connection, user_keys, keys, lambda _: {"confirmed_at": at})
    sealed_sets.change_many(connection, credentials, held, lambda _: {"confirmed_at": at})


@prepared
def _marked_user_keys(workspace_id: int, at: datetime) -> Select[Any]:
    return select(user_keys).where(user_keys.c.workspace_id == workspace_id, user_keys.c.frozen_at == at)


@prepared
def _marked_credentials(workspace_id: int, at: datetime) -> Select[Any]:
    statement = select(credentials).join(servers, servers.c.id == credentials.c.server_id)
    return statement.where(servers.c.workspace_id == workspace_id, credentials.c.frozen_at == at)


@prepared
def _marked_servers(workspace_id: int, at: datetime) -> Select[Any]:
    return select(servers.c.id).where(servers.c.workspace_id == workspace_id, servers.c.frozen_at == at)


def unmark(connection: Connection, workspace_id: int, at: datetime) -> None:
    """Remove the marks of the freeze that began at this time from servers, user keys and credentials."""
    mark_servers(connection, _marked_servers.values(connection, workspace_id, at), None)
    mark_user_keys(connection, _marked_user_keys.rows(connection, workspace_id, at), None)
    mark_credentials(connection, _marked_credentials.rows(connection, workspace_id, at), None)


@prepared
def _user_key(workspace_id: int, key_id: int) -> Select[Any]:
    return (
        select(user_keys, users.c.kind.label("user_kind"), users.c.name.label("user_name"))
        .join(users, users.c.id == user_keys.c.user_id)
        .where(user_keys.c.id == key_id, user_keys.c.workspace_id == workspace_id)
    )


def user_key(connection: Connection, workspace_id: int, key_id: int) -> Row | None:
    """The row of a user's key of this workspace, with user_kind and user_name beside it, or None."""
    return _user_key.row(connection, workspace_id, key_id)


@prepared
def _credential(workspace_id: int, credential_id: int) -> Select[Any]:
    return (
        select(credentials, servers.c.name.label("server_name"), system_users.c.username)
        .join(servers, servers.c.id == credentials.c.server_id)
        .join(system_users, system_users.c.id == credentials.c.system_user_id)
        .where(credentials.c.id == credential_id, servers.c.workspace_id == workspace_id)
    )


def credential(connection: Connection, workspace_id: int, credential_id: int) -> Row | None:
    """The row of a credential of this workspace, with server_name and username beside it, or None."""
    return _credential.row(connection, workspace_id, credential_id)


@prepared
def _owner_of(workspace_id: int, fingerprint: str) -> Select[Any]:
    statement = select(users.c.name).join(user_keys, user_keys.c.user_id == users.c.id)
    return statement.where(user_keys.c.workspace_id == workspace_id, user_keys.c.fingerprint == fingerprint)


def owner_of(connection: Connection, workspace_id: int, fingerprint: str) -> str | None:
    """The name of the user who registered a key in this workspace, or None."""
    name: str | None = _owner_of.value(connection, workspace_id, fingerprint)
    return name


@prepared
def _credentials_at(workspace_id: int, server_id: int | None) -> Select[Any]:
    statement = select(credentials.c.fingerprint, credentials.c.break_glass).join(
        servers, servers.c.id == credentials.c.server_id
    )
    statement = statement.where(servers.c.workspace_id == workspace_id)
    return statement if server_id is None else statement.where(credentials.c.server_id == server_id)


def credentials_at(connection: Connection, workspace_id: int, server_id: int | None = None) -> list[Row]:
    """Fingerprint and break_glass of all credentials of a workspace, or of one server."""
    return _credentials_at.rows(connection, workspace_id, server_id)


def _freeze(row: Row) -> Freeze:
    """A freeze from its row, which has no seal: revisions that Keyrack cannot have written are left out."""
    held = row["revisions"] if isinstance(row["revisions"], dict) else {}
    revisions = {name: value for name, value in held.items() if name.isdecimal() and isinstance(value, int)}
    return Freeze(**{**row, "revisions": revisions})
