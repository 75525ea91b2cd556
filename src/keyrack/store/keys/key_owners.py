"""Whose a key is: the user of a workspace who registered it; must decide nothing.

A row that is not as Keyrack wrote it names nobody: whoever can write into the database names no culprit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, select

from keyrack.store.engine.prepared import among, prepared
from keyrack.store.sealing import sealed
from keyrack.store.tables import user_keys, users


@dataclass(frozen=True, slots=True)
class Owner:
    """A user, and what they call the key; title: None where they gave it none."""

    user_id: int
    name: str
    title: str | None


@prepared
def _owners(workspace_id: int, fingerprints: Sequence[str]) -> Select[Any]:
    return (
        select(*sealed.columns(user_keys, "key_"), users.c.name)
        .join(users, users.c.id == user_keys.c.user_id)
        .where(user_keys.c.workspace_id == workspace_id, among(user_keys.c.fingerprint, fingerprints))
    )


def of_keys(connection: Connection, workspace_id: int, fingerprints: Sequence[str]) -> dict[str, Owner]:
    """By fingerprint who registered a key; one that nobody registered is left out."""
    rows = _owners.rows(connection, workspace_id, fingerprints) if fingerprints else []
    return {
        row.key_fingerprint: Owner(row.key_user_id, row.name, row.key_title)
        for row in rows
        if sealed.holds(connection, user_keys, row, "key_")
    }


def names(connection: Connection, workspace_id: int, fingerprints: Sequence[str]) -> dict[str, str]:
    """By fingerprint the name of who registered a key; one that nobody registered is left out."""
    return {fingerprint: one.name for fingerprint, one in of_keys(connection, workspace_id, fingerprints).items()}
