"""Questions about the system users of servers, and what is asked of their accounts; must decide nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, or_, select

from keyrack.model import Page, Place, SystemUser, Window
from keyrack.store.engine.prepared import Row, among, prepared
from keyrack.store.per_server import per_server
from keyrack.store.rows import paged
from keyrack.store.sealing import sealed, sealed_sets, seals
from keyrack.store.search import contains
from keyrack.store.tables import removed_accounts, system_users


def add(
    connection: Connection,
    server_id: int,
    username: str,
    *,
    deletable: bool,
    managed: bool,
    at: datetime,
    revision: int | None = None,
    encrypted_password: bytes | None = None,
) -> int:
    """Insert a system user; revision: with which its host is asked for the account. Answers its id."""
    values = {
        "server_id": server_id,
        "username": username,
        "deletable": deletable,
        "managed": managed,
        "created_at": at,
        "revision": revision,
        "encrypted_password": encrypted_password,
    }
    return int(sealed_sets.insert_many(connection, system_users, [values])[0].id)


def get(connection: Connection, server_id: int, system_user_id: int) -> SystemUser | None:
    """A system user of this server, or None."""
    row = _by_id.row(connection, server_id, system_user_id)
    return None if row is None else _record(row)


@prepared
def _by_id(server_id: int, system_user_id: int) -> Select[Any]:
    return select(system_users).where(system_users.c.id == system_user_id, system_users.c.server_id == server_id)


def by_name(connection: Connection, server_id: int, username: str) -> SystemUser | None:
    """The system user of this server with this name, or None."""
    row = _by_name.row(connection, server_id, username)
    return None if row is None else _record(row)


@prepared
def _by_name(server_id: int, username: str) -> Select[Any]:
    return select(system_users).where(system_users.c.server_id == server_id, system_users.c.username == username)


def have_account(connection: Connection, server_ids: Iterable[int], username: str) -> bool:
    """Whether any of these servers has an account of this name."""
    return _account_on.row(connection, tuple(server_ids), username) is not None


@prepared
def _account_on(server_ids: Iterable[int], username: str) -> Select[Any]:
    named = (among(system_users.c.server_id, server_ids), system_users.c.username == username)
    return select(system_users.c.id).where(*named).limit(1)


def find(
    connection: Connection, server_id: int, *, search: str = "", offset: int, limit: int, after: Place | None = None
) -> Page[SystemUser]:
    """A page of a server's system users, oldest first; search: part of the name; after: the place before the page."""
    return _find.page(connection, _record, Window(limit, offset, after), server_id, search or None)


@paged
def _find(server_id: int, sought: str | None) -> Select[Any]:
    statement = select(system_users).where(system_users.c.server_id == server_id).order_by(system_users.c.id)
    return statement if sought is None else statement.where(contains(system_users.c.username, sought))


def change(connection: Connection, system_user_id: int, values: Mapping[str, Any]) -> None:
    """Set columns of a system user."""
    sealed.change(connection, system_users, sealed.row_of(system_user_id), values=values)


def remove(connection: Connection, system_user_id: int) -> None:
    """Delete a system user and its credentials."""
    sealed.remove(connection, system_users, sealed.row_of(system_user_id))


def accounts_asked(connection: Connection, server_id: int) -> tuple[tuple[SystemUser, bytes | None], ...]:
    """The system users of a server for which something is asked of the host, each with its sealed password."""
    rows = _accounts_asked.rows(connection, server_id)
    return tuple((_record(row), row.encrypted_password) for row in rows if sealed.sound(connection, system_users, row))


@per_server
def _accounts_asked(server_ids: Iterable[int]) -> Select[Any]:
    asked = or_(
        system_users.c.managed,
        system_users.c.encrypted_password.is_not(None),
        system_users.c.deployment_key_asked_at.is_not(None),
    )
    statement = select(system_users).where(among(system_users.c.server_id, server_ids), asked)
    return statement.order_by(system_users.c.username)


def accounts_removed(connection: Connection, server_id: int) -> tuple[str, ...]:
    """The names of the accounts that a host must not have any more."""
    rows = _accounts_removed.rows(connection, server_id)
    return tuple(row.username for row in rows if sealed.sound(connection, removed_accounts, row))


@per_server
def _accounts_removed(server_ids: Iterable[int]) -> Select[Any]:
    statement = select(removed_accounts).where(among(removed_accounts.c.server_id, server_ids))
    return statement.order_by(removed_accounts.c.username)


def ask_removal(connection: Connection, server_id: int, username: str, at: datetime) -> None:
    """Note that an account must not exist on a host any more."""
    keep_account(connection, server_id, username)
    values = {"server_id": server_id, "username": username, "removed_at": at}
    sealed.insert_row(connection, removed_accounts, values)


def keep_account(connection: Connection, server_id: int, username: str) -> None:
    """Forget that an account was to be removed: it is wanted again."""
    named = (removed_accounts.c.server_id == server_id, removed_accounts.c.username == username)
    sealed.remove(connection, removed_accounts, *named)


def _record(row: Row) -> SystemUser:
    values = seals.unsealed(row)
    del values["encrypted_password"]
    return SystemUser(**values)
