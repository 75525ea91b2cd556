"""Questions about users' keys as they are published: without entries that hold no key; must decide nothing."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Select, func, select

from keyrack.model import Page, UserKey
from keyrack.store.keys.user_keys import user_key_of
from keyrack.store.sealing import sealed
from keyrack.store.tables import user_keys

_keys = select(user_keys).where(user_keys.c.public_key.is_not(None))


def page_of_user(connection: Connection, user_id: int, *, offset: int, limit: int) -> Page[UserKey]:
    """A page of a user's keys, newest first."""
    statement = _keys.where(user_keys.c.user_id == user_id)
    total = connection.execute(select(func.count()).select_from(statement.subquery())).scalar_one()
    rows = connection.execute(statement.order_by(user_keys.c.id.desc()).offset(offset).limit(limit)).mappings()
    return Page(tuple(user_key_of(row) for row in rows), total, offset, limit)


def sound_of_user(connection: Connection, user_id: int) -> tuple[UserKey, ...]:
    """A user's keys that are as Keyrack wrote them, oldest first."""
    rows = connection.execute(_keys.where(user_keys.c.user_id == user_id).order_by(user_keys.c.id)).mappings()
    return tuple(user_key_of(row) for row in rows if sealed.holds(connection, user_keys, row))


def public_keys_of_workspace(connection: Connection, workspace_id: int) -> tuple[tuple[int, str], ...]:
    """Id and line (type and base64) of every user key of a workspace."""
    columns: Select[Any] = _keys.with_only_columns(user_keys.c.id, user_keys.c.public_key)
    rows = connection.execute(columns.where(user_keys.c.workspace_id == workspace_id))
    return tuple((row.id, row.public_key) for row in rows)


def of_workspace(connection: Connection, workspace_id: int, key_id: int) -> UserKey | None:
    """A user key of this workspace, or None."""
    query = _keys.where(user_keys.c.id == key_id, user_keys.c.workspace_id == workspace_id)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else user_key_of(row)
