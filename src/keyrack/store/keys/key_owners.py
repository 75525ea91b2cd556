"""Which user of a workspace registered a key; must decide nothing.

A row that others altered names nobody, so that nobody who can write into the database puts a key on somebody else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, insert, select

from keyrack.model import UserKey
from keyrack.store.dialect import insert_of
from keyrack.store.engine.prepared import Statement, among, placeholder, prepared
from keyrack.store.keys.user_keys import user_key_by_id
from keyrack.store.sealing import sealed, seals
from keyrack.store.tables import (
    key_owners,
    user_keys,
    users,
)


@dataclass(frozen=True, slots=True)
class Owner:
    """A user, and what they call the key; title: None where they gave it none."""

    user_id: int
    name: str
    title: str | None


@prepared
def _owners(workspace_id: int, fingerprints: Sequence[str]) -> Select[Any]:
    return (
        select(*seals.columns(user_keys, "key_"), users.c.name)
        .join(users, users.c.id == user_keys.c.user_id)
        .where(user_keys.c.workspace_id == workspace_id, among(user_keys.c.fingerprint, fingerprints))
    )


def of_keys(connection: Connection, workspace_id: int, fingerprints: Sequence[str]) -> dict[str, Owner]:
    """By fingerprint the user who registered a key; keys that no user registered are left out."""
    rows = _owners.rows(connection, workspace_id, fingerprints) if fingerprints else []
    return {
        row.key_fingerprint: Owner(row.key_user_id, row.name, row.key_title)
        for row in rows
        if sealed.holds(connection, user_keys, row, "key_")
    }


def names(connection: Connection, workspace_id: int, fingerprints: Sequence[str]) -> dict[str, str]:
    """By fingerprint the name of the user who registered a key; keys that no user registered are left out."""
    return {fingerprint: one.name for fingerprint, one in of_keys(connection, workspace_id, fingerprints).items()}


def claim_fingerprint(connection: Connection, fingerprint: str, *, kind: str, user_key_id: int | None) -> bool:
    """Claim a fingerprint for a user's key (kind "user") or for deploy keys ("deploy"); False if it is claimed."""
    return claiming_fingerprint(connection, fingerprint, kind=kind, user_key_id=user_key_id)()


def claiming_fingerprint(
    connection: Connection, fingerprint: str, *, kind: str, user_key_id: int | None
) -> Callable[[], bool]:
    """The same without waiting: call what it returns for the answer, best after another question on PostgreSQL."""
    values = {"fingerprint": fingerprint, "kind": kind, "user_key_id": user_key_id}
    sent = _claiming(connection.dialect.name).enqueue(connection, values)
    return lambda: bool(sent.rows())


def claim_free_fingerprint(connection: Connection, fingerprint: str, user_key_id: int) -> None:
    """The same for a user's key whose fingerprint was found to be free, without waiting on PostgreSQL: if another
    workspace has claimed it since, the next question or the commit raises IntegrityError.
    """
    _claiming_free().run_many(connection, [{"fingerprint": fingerprint, "kind": "user", "user_key_id": user_key_id}])


@cache
def _claiming_free() -> Statement:
    return Statement(lambda: insert(key_owners).values({column.name: placeholder(column) for column in key_owners.c}))


@cache
def _claiming(dialect: str) -> Statement:
    values = {column.name: placeholder(column) for column in key_owners.c}
    insertion = insert_of(dialect)(key_owners).values(values).on_conflict_do_nothing()
    return Statement(lambda: insertion.returning(key_owners.c.fingerprint))


@prepared
def _owner(fingerprint: str) -> Select[Any]:
    return select(key_owners).where(key_owners.c.fingerprint == fingerprint)


def owner_of(connection: Connection, fingerprint: str) -> tuple[str, UserKey | None] | None:
    """Who has claimed a fingerprint: ("user", the user's key) or ("deploy", None); None if nobody has."""
    row = _owner.row(connection, fingerprint)
    if row is None:
        return None
    return row.kind, None if row.user_key_id is None else user_key_by_id(connection, row.user_key_id)
