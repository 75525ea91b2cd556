"""Questions about the keys that users registered as their own; must decide nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Select, func, select

from keyrack.model import Page, Place, UserKey, Window
from keyrack.store.engine.prepared import prepared
from keyrack.store.rows import Records, paged_in_tree
from keyrack.store.sealing import sealed, sealed_sets, seals
from keyrack.store.search import contains
from keyrack.store.tables import (
    user_keys,
)
from keyrack.store.unchanged import kept


def add_user_key(connection: Connection, values: Mapping[str, Any], ids: sealed_sets.Ids | None = None) -> UserKey:
    """Insert a user key (the columns of the table); answers it. ids: the id reserved for it."""
    return user_key_of(sealed_sets.insert_many(connection, user_keys, [values], ids)[0])


@prepared
def _user_key_by_id(key_id: int, user_id: int | None = None) -> Select[Any]:
    statement = select(user_keys).where(user_keys.c.id == key_id)
    return statement if user_id is None else statement.where(user_keys.c.user_id == user_id)


def user_key_by_id(connection: Connection, key_id: int) -> UserKey | None:
    """The key with this id, of whichever user, or None."""
    row = _user_key_by_id.row(connection, key_id)
    return None if row is None else user_key_of(row)


def get_user_key(connection: Connection, user_id: int, key_id: int) -> UserKey | None:
    """A key of this user, or None."""
    return _user_keys.one(connection, _user_key_by_id, key_id, user_id)


@paged_in_tree
def _user_keys_of(user_id: int, sought: str | None) -> Select[Any]:
    statement = select(user_keys).where(user_keys.c.user_id == user_id).order_by(user_keys.c.id.desc())
    return statement if sought is None else statement.where(contains(user_keys.c.title, sought))


def find_user_keys(
    connection: Connection,
    user_id: int,
    *,
    search: str = "",
    offset: int = 0,
    limit: int,
    after: Place | None = None,
) -> Page[UserKey]:
    """A page of a user's keys, newest first; search: part of the title, any case."""
    window = Window(limit, offset, after)
    return kept(
        connection,
        ("user keys", user_id, search, window),
        lambda: _user_keys_of.page(connection, _user_keys, window, user_id, search or None),
    )


@paged_in_tree
def _user_keys_of_workspace(workspace_id: int, user_id: int | None) -> Select[Any]:
    statement = select(user_keys).where(user_keys.c.workspace_id == workspace_id).order_by(user_keys.c.id.desc())
    return statement if user_id is None else statement.where(user_keys.c.user_id == user_id)


def user_keys_of_workspace(
    connection: Connection, workspace_id: int, window: Window, *, user_id: int | None = None
) -> Page[UserKey]:
    """A page of the keys of a workspace's users, newest first; user_id: of this one alone."""
    return _user_keys_of_workspace.page(connection, user_key_of, window, workspace_id, user_id)


@prepared
def _count_user_keys(user_id: int) -> Select[Any]:
    return select(func.count()).select_from(user_keys).where(user_keys.c.user_id == user_id)


def count_user_keys(connection: Connection, user_id: int) -> int:
    """How many keys a user has."""
    return int(_count_user_keys.value(connection, user_id))


@prepared
def _keys_of_user(user_id: int) -> Select[Any]:
    mine = (user_keys.c.user_id == user_id, user_keys.c.public_key.is_not(None))
    return select(user_keys).where(*mine).order_by(user_keys.c.id)


def keys_of_user(connection: Connection, user_id: int) -> tuple[UserKey, ...]:
    """A user's keys but for entries that hold no key, oldest first."""
    return tuple(user_key_of(row) for row in _keys_of_user.rows(connection, user_id))


def remove_user_key(connection: Connection, key_id: int) -> None:
    """Delete a user key; its claim on the fingerprint goes with it."""
    sealed.remove(connection, user_keys, sealed.row_of(key_id))


def user_key_holds(connection: Connection, workspace_id: int, key_id: int) -> bool | None:
    """Whether a user key of a workspace is as Keyrack wrote it; None where there is none."""
    row = _user_key_by_id.row(connection, key_id)
    if row is None or row.workspace_id != workspace_id:
        return None
    return sealed.holds(connection, user_keys, row)


def user_key_of(row: Any) -> UserKey:
    """A user key from its row."""
    return UserKey(**seals.unsealed(row))


_user_keys = Records(lambda connection, row: user_key_of(row), table=user_keys)
