"""Questions about what people sign in with beside a password, and who they are at providers; must decide nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, select

from keyrack.store.engine.prepared import Row, prepared
from keyrack.store.rows import inserted
from keyrack.store.sealing import sealed, seals
from keyrack.store.tables import authenticators, identities

OWN_PASSWORD = "password"  # noqa: S105 — a kind
"""The kind that notes that the person chose the password, and not whoever made the account."""


@dataclass(frozen=True, slots=True)
class Authenticator:
    """What somebody signs in with beside the password; the fields are explained in store/tables/sign_in.py."""

    id: int
    user_id: int
    kind: str
    name: str
    secret: bytes
    credential: bytes | None
    step: int | None
    created_at: datetime
    last_used_at: datetime | None


def add(connection: Connection, values: Mapping[str, Any]) -> int:
    """Insert an authenticator (the columns of the table); answers its id."""
    return inserted(connection, authenticators, values)


def of_user(connection: Connection, user_id: int) -> tuple[Authenticator, ...]:
    """A user's authenticators that are as Keyrack wrote them, oldest first."""
    return _records(connection, _of_user.rows(connection, user_id))


@prepared
def _of_user(user_id: int) -> Select[Any]:
    return select(authenticators).where(authenticators.c.user_id == user_id).order_by(authenticators.c.id)


def note_own_password(connection: Connection, user_id: int, at: datetime) -> None:
    """Note that a user chose the password themselves."""
    values = {"user_id": user_id, "kind": OWN_PASSWORD, "name": OWN_PASSWORD, "secret": b"", "created_at": at}
    inserted(connection, authenticators, values)


def any_of_user(connection: Connection, user_id: int, kinds: tuple[str, ...]) -> bool:
    """Whether a user has an authenticator of one of these kinds. One that others altered counts too, so that altering
    it does not turn off the second factor.
    """
    return any(row.kind in kinds for row in _of_user.rows(connection, user_id))


def by_credential(connection: Connection, credential: bytes) -> Authenticator | None:
    """The passkey with this id, or None."""
    records = _records(connection, _by_credential.rows(connection, credential))
    return records[0] if records else None


@prepared
def _by_credential(credential: bytes) -> Select[Any]:
    return select(authenticators).where(authenticators.c.credential == credential)


def change(connection: Connection, authenticator_id: int, values: Mapping[str, Any]) -> None:
    """Set columns of an authenticator."""
    sealed.change(connection, authenticators, sealed.row_of(authenticator_id), values=values)


def remove(connection: Connection, authenticator_id: int) -> None:
    """Delete an authenticator."""
    sealed.remove(connection, authenticators, sealed.row_of(authenticator_id))


def remove_kind(connection: Connection, user_id: int, kind: str) -> int:
    """Delete all authenticators of a kind of a user; answers how many."""
    return sealed.remove(connection, authenticators, authenticators.c.user_id == user_id, authenticators.c.kind == kind)


def _records(connection: Connection, rows: list[Row]) -> tuple[Authenticator, ...]:
    return tuple(Authenticator(**seals.unsealed(row)) for row in rows if sealed.sound(connection, authenticators, row))


def identify(connection: Connection, *, issuer: str, subject: str) -> int | None:
    """The id of the user whom a provider knows by this subject, or None."""
    row = _identity.row(connection, issuer, subject)
    return row.user_id if row is not None and sealed.sound(connection, identities, row) else None


@prepared
def _identity(issuer: str, subject: str) -> Select[Any]:
    return select(identities).where(identities.c.issuer == issuer, identities.c.subject == subject)


def is_identified(connection: Connection, user_id: int) -> bool:
    """Whether any provider knows a user."""
    return bool(_identities_of.rows(connection, user_id))


@prepared
def _identities_of(user_id: int) -> Select[Any]:
    return select(identities.c.id).where(identities.c.user_id == user_id)


def add_identity(connection: Connection, *, user_id: int, issuer: str, subject: str, at: datetime) -> None:
    """Note by which subject a provider knows a user."""
    inserted(connection, identities, {"user_id": user_id, "issuer": issuer, "subject": subject, "created_at": at})
