"""Questions about keys that were revoked everywhere in a workspace; must decide nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from keyrack.model import Page
from keyrack.store.rows import page
from keyrack.store.tables import revoked_keys

AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class RevokedKey:
    """A key that nobody may register in a workspace. revoked_by: a name; reason: "" where none was given."""

    workspace_id: int
    fingerprint: str
    revoked_by: str
    reason: str
    revoked_at: datetime


def add(connection: Connection, workspace_id: int, fingerprint: str, *, by: str, reason: str, at: datetime) -> None:
    """Note that a key is revoked everywhere; the first note stays."""
    dialect_insert = postgresql_insert if connection.dialect.name == "postgresql" else sqlite_insert
    statement = dialect_insert(revoked_keys).values(
        workspace_id=workspace_id, fingerprint=fingerprint, revoked_by=by, reason=reason, revoked_at=at
    )
    connection.execute(statement.on_conflict_do_nothing())


def get(connection: Connection, workspace_id: int, fingerprint: str) -> RevokedKey | None:
    """The note about a key, or None where it may be registered."""
    statement = select(revoked_keys).where(
        revoked_keys.c.workspace_id == workspace_id, revoked_keys.c.fingerprint == fingerprint
    )
    row = connection.execute(statement).one_or_none()
    return None if row is None else RevokedKey(**row._mapping)


def among(connection: Connection, workspace_id: int, fingerprints: Sequence[str]) -> frozenset[str]:
    """Those of these keys that are revoked everywhere."""
    found: set[str] = set()
    for at in range(0, len(fingerprints), AT_ONCE):
        some = revoked_keys.c.fingerprint.in_(fingerprints[at : at + AT_ONCE])
        statement = select(revoked_keys.c.fingerprint).where(revoked_keys.c.workspace_id == workspace_id, some)
        found.update(connection.execute(statement).scalars())
    return frozenset(found)


def find(connection: Connection, workspace_id: int, *, offset: int, limit: int) -> Page[RevokedKey]:
    """A page of them, newest first."""
    statement = select(revoked_keys).where(revoked_keys.c.workspace_id == workspace_id)
    ordered = statement.order_by(revoked_keys.c.revoked_at.desc(), revoked_keys.c.fingerprint)
    return page(connection, ordered, lambda row: RevokedKey(**row._mapping), offset=offset, limit=limit)


def remove(connection: Connection, workspace_id: int, fingerprint: str) -> bool:
    """Forget that a key was revoked everywhere; False when it was not."""
    removed = connection.execute(
        delete(revoked_keys).where(
            revoked_keys.c.workspace_id == workspace_id, revoked_keys.c.fingerprint == fingerprint
        )
    )
    return removed.rowcount == 1
