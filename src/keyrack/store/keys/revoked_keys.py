"""Questions about keys that were revoked everywhere in a workspace; must decide nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, or_, select

from keyrack.model import Page, Place, Window
from keyrack.store.chunks import chunks
from keyrack.store.engine.prepared import prepared
from keyrack.store.rows import page, piece_after
from keyrack.store.sealing import sealed, seals
from keyrack.store.tables import revoked_keys

BATCH_SIZE = 500


@dataclass(frozen=True, slots=True)
class RevokedKey:
    """A key that nobody may register in a workspace. revoked_by: a name; reason: "" where none was given."""

    workspace_id: int
    fingerprint: str
    revoked_by: str
    reason: str
    revoked_at: datetime


def add(connection: Connection, workspace_id: int, fingerprint: str, *, by: str, reason: str, at: datetime) -> None:
    """Note that a key is revoked everywhere; an earlier note stays as it is."""
    values = {"workspace_id": workspace_id, "fingerprint": fingerprint, "revoked_by": by, "reason": reason}
    sealed.insert_new(connection, revoked_keys, {**values, "revoked_at": at})


def get(connection: Connection, workspace_id: int, fingerprint: str) -> RevokedKey | None:
    """The note about a key, or None where it may be registered."""
    row = _get.row(connection, workspace_id, fingerprint)
    return None if row is None else _record(connection, row)


@prepared
def _get(workspace_id: int, fingerprint: str) -> Select[Any]:
    return select(revoked_keys).where(
        revoked_keys.c.workspace_id == workspace_id, revoked_keys.c.fingerprint == fingerprint
    )


def among(connection: Connection, workspace_id: int, fingerprints: Sequence[str]) -> frozenset[str]:
    """Those of these keys that are revoked everywhere."""
    revoked: set[str] = set()
    for some in chunks(fingerprints, BATCH_SIZE):
        which = (revoked_keys.c.workspace_id == workspace_id, revoked_keys.c.fingerprint.in_(some))
        statement = select(revoked_keys.c.fingerprint).where(*which)
        revoked.update(connection.execute(statement).scalars())
    return frozenset(revoked)


def of_workspace(connection: Connection, workspace_id: int) -> tuple[RevokedKey, ...]:
    """All keys revoked everywhere in a workspace, by fingerprint."""
    statement = select(revoked_keys).where(revoked_keys.c.workspace_id == workspace_id)
    rows = connection.execute(statement.order_by(revoked_keys.c.fingerprint))
    return tuple(_record(connection, row) for row in rows)


def find(
    connection: Connection, workspace_id: int, *, offset: int, limit: int, after: Place | None = None
) -> Page[RevokedKey]:
    """A page of the keys revoked everywhere in a workspace, newest first; after: revoked_at and fingerprint of the one
    before.
    """
    statement = select(revoked_keys).where(revoked_keys.c.workspace_id == workspace_id)
    ordered = statement.order_by(revoked_keys.c.revoked_at.desc(), revoked_keys.c.fingerprint)
    if after is None:
        return page(connection, ordered, lambda row: _record(connection, row), offset=offset, limit=limit)
    if after:
        at, fingerprint = after
        later = or_(revoked_keys.c.revoked_at < at, revoked_keys.c.fingerprint > fingerprint)
        ordered = ordered.where(revoked_keys.c.revoked_at <= at, later)
    keys = [_record(connection, row) for row in connection.execute(ordered.limit(limit + 1))]
    return piece_after([(one, (one.revoked_at, one.fingerprint)) for one in keys], Window(limit, after=after))


def remove(connection: Connection, workspace_id: int, fingerprint: str) -> bool:
    """Let a key that was revoked everywhere be registered again; False if it was not revoked."""
    return sealed.remove(connection, revoked_keys, sealed.row_of(workspace_id, fingerprint)) == 1


def _record(connection: Connection, row: Any) -> RevokedKey:
    """A row's record. A row that others altered refuses its key all the same; sound() notes it for an alarm."""
    sealed.sound(connection, revoked_keys, row)
    return RevokedKey(**seals.unsealed(row))
