"""Questions about access keys (an id and a secret of a user); must decide nothing and decrypt nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from keyrack.store.tables import access_keys


@dataclass(frozen=True, slots=True)
class AccessKeyRow:
    """An access key as it is kept; sealed_secret is encrypted, security_token_hash None for permanent keys."""

    id: str
    user_id: int
    sealed_secret: bytes
    description: str
    active: bool
    security_token_hash: bytes | None
    details: Mapping[str, Any]
    created_at: datetime
    expires_at: datetime | None


def get(connection: Connection, key_id: str) -> AccessKeyRow | None:
    """The access key with this id, of whichever user, or None."""
    row = connection.execute(select(access_keys).where(access_keys.c.id == key_id)).one_or_none()
    return None if row is None else _access_key(row)


def of_user(connection: Connection, user_id: int, *, permanent: bool = True) -> tuple[AccessKeyRow, ...]:
    """A user's access keys, oldest first; permanent: leave out the temporary ones."""
    statement = select(access_keys).where(access_keys.c.user_id == user_id)
    if permanent:
        statement = statement.where(access_keys.c.security_token_hash.is_(None))
    rows = connection.execute(statement.order_by(access_keys.c.created_at, access_keys.c.id))
    return tuple(_access_key(row) for row in rows)


def add(connection: Connection, values: Mapping[str, Any]) -> None:
    """Insert an access key (the columns of the table)."""
    connection.execute(insert(access_keys).values(**values))


def change(connection: Connection, key_id: str, values: Mapping[str, Any]) -> None:
    """Set columns of an access key."""
    connection.execute(update(access_keys).where(access_keys.c.id == key_id).values(**values))


def remove(connection: Connection, key_id: str) -> None:
    """Delete an access key."""
    connection.execute(delete(access_keys).where(access_keys.c.id == key_id))


def _access_key(row: Row[Any]) -> AccessKeyRow:
    return AccessKeyRow(**row._mapping)
