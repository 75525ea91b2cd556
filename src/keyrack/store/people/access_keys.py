"""Questions about access keys (an id and a secret of a user); must decide nothing and decrypt nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, and_, bindparam, delete, func, select

from keyrack.model import User
from keyrack.store.dialect import dialect_insert
from keyrack.store.people import users as user_rows
from keyrack.store.rows import ONE_ROW
from keyrack.store.sealing import sealed, seals
from keyrack.store.tables import access_key_failures, access_keys, users


@dataclass(frozen=True, slots=True)
class AccessKeyRow:
    """An access key; security_token_hash: None for a permanent one."""

    id: str
    user_id: int
    encrypted_secret: bytes
    description: str
    active: bool
    security_token_hash: bytes | None
    details: Mapping[str, Any]
    created_at: datetime
    expires_at: datetime | None

    @property
    def scopes(self) -> tuple[str, ...]:
        """What the key may do at most: the scopes of the token that made it."""
        return tuple(self.details.get("scopes", ("*",)))

    @property
    def project(self) -> str:
        """The uid of the project that the key is bound to, as the token that made it was; "" for none."""
        return str(self.details.get("project", ""))


@dataclass(frozen=True, slots=True)
class Signer:
    """An access key, its user, and the failed signatures in a row with it from one address."""

    key: AccessKeyRow
    user: User
    failures: int
    last_failure_at: datetime | None


_signer = select(
    *seals.columns(access_keys, "key_"),
    *seals.columns(users, "user_"),
    access_key_failures.c.failures,
    access_key_failures.c.last_at,
).join_from(access_keys, users, users.c.id == access_keys.c.user_id)


def signer(connection: Connection, key_id: str, address: str) -> Signer | None:
    """The access key with this id, with its user and its failures from an address, in one question; or None."""
    of_address = and_(
        access_key_failures.c.access_key_id == access_keys.c.id, access_key_failures.c.address == address[:64]
    )
    statement = _signer.outerjoin(access_key_failures, of_address).where(access_keys.c.id == key_id)
    row = connection.execute(statement).one_or_none()
    if row is None:
        return None
    key, user = access_key_record(connection, row, "key_"), user_rows.user_record(connection, row, "user_")
    return Signer(key, user, row.failures or 0, row.last_at)


@dataclass(frozen=True, slots=True)
class ClaimedAccessKey:
    """The access key that an id names, each field None where there is none. Proves nothing: no seal was checked."""

    encrypted_secret: bytes | None
    workspace_id: int | None
    user_id: int | None
    user_name: str | None


# One row of the same columns whether there is such a key or not; see users.claimed_identity.
_claimed = select(access_keys.c.encrypted_secret, users.c.workspace_id, users.c.id, users.c.name).select_from(
    ONE_ROW.outerjoin(access_keys, access_keys.c.id == bindparam("key")).outerjoin(
        users, users.c.id == access_keys.c.user_id
    )
)


def claimed_access_key(connection: Connection, key_id: str) -> ClaimedAccessKey:
    """The access key that an id names, and its user; always one question with one row."""
    return ClaimedAccessKey(*connection.execute(_claimed, {"key": key_id}).one())


def get(connection: Connection, key_id: str) -> AccessKeyRow | None:
    """The access key with this id, of any user, or None."""
    return _one(connection, select(access_keys).where(access_keys.c.id == key_id))


def of_user(connection: Connection, user_id: int) -> tuple[AccessKeyRow, ...]:
    """A user's permanent access keys, oldest first."""
    statement = select(access_keys).where(access_keys.c.user_id == user_id, access_keys.c.security_token_hash.is_(None))
    rows = connection.execute(statement.order_by(access_keys.c.created_at, access_keys.c.id))
    return tuple(access_key_record(connection, row) for row in rows)


def add(connection: Connection, values: Mapping[str, Any]) -> None:
    """Insert an access key (the columns of the table)."""
    sealed.insert_row(connection, access_keys, values)


def change(connection: Connection, key_id: str, values: Mapping[str, Any]) -> None:
    """Set columns of an access key."""
    sealed.change(connection, access_keys, sealed.row_of(key_id), values=values)


def switch_off(connection: Connection, user_id: int) -> int:
    """Deactivate all of a user's access keys; answers how many were active."""
    which = (access_keys.c.user_id == user_id, access_keys.c.active)
    return len(sealed.change(connection, access_keys, *which, values={"active": False}))


def count_temporary(connection: Connection, user_id: int) -> int:
    """How many temporary access keys a user has."""
    statement = select(func.count()).where(
        access_keys.c.user_id == user_id, access_keys.c.security_token_hash.is_not(None)
    )
    return int(connection.execute(statement).scalar_one())


def remove(connection: Connection, key_id: str) -> None:
    """Delete an access key."""
    sealed.remove(connection, access_keys, sealed.row_of(key_id))


def remove_temporary(connection: Connection, user_id: int, *, ended_by: datetime | None = None) -> int:
    """Delete a user's temporary access keys, all or those that had expired at an instant; answers how many."""
    which = [access_keys.c.user_id == user_id, access_keys.c.security_token_hash.is_not(None)]
    if ended_by is not None:
        which.append(access_keys.c.expires_at <= ended_by)
    return sealed.remove(connection, access_keys, *which)


def count_failure(connection: Connection, key_id: str, address: str, at: datetime, since: datetime) -> int:
    """Count a wrong signature from an address; answers how many there were in a row, this one included. Rows whose last
    one is not after `since` are deleted first, so that they count no more.
    """
    stale = delete(access_key_failures).where(
        access_key_failures.c.access_key_id == key_id, access_key_failures.c.last_at <= since
    )
    connection.execute(stale)
    statement = dialect_insert(connection, access_key_failures).values(
        access_key_id=key_id, address=address[:64], failures=1, last_at=at
    )
    counted = statement.on_conflict_do_update(
        index_elements=["access_key_id", "address"],
        set_={"failures": access_key_failures.c.failures + 1, "last_at": at},
    )
    return int(connection.execute(counted.returning(access_key_failures.c.failures)).scalar_one())


def forget_failures(connection: Connection, key_id: str, address: str) -> None:
    """Delete the count of wrong signatures from an address, after a right one."""
    connection.execute(
        delete(access_key_failures).where(
            access_key_failures.c.access_key_id == key_id, access_key_failures.c.address == address[:64]
        )
    )


def _one(connection: Connection, statement: Select[Any]) -> AccessKeyRow | None:
    row = connection.execute(statement).one_or_none()
    return None if row is None else access_key_record(connection, row)


def access_key_record(connection: Connection, row: Any, prefix: str = "") -> AccessKeyRow:
    """An access key from all columns of its row; inactive and without scopes if others altered the row."""
    fields = seals.unsealed(seals.part(row, access_keys, prefix))
    if not sealed.sound(connection, access_keys, row, prefix):
        fields |= {"active": False, "details": {"scopes": ()}}
    return AccessKeyRow(**fields)
