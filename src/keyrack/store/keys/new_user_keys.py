"""What must be known before a user's key is entered, asked at once; must decide nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, exists, func, select

from keyrack.store.engine.prepared import prepared
from keyrack.store.keys import barred_keys
from keyrack.store.sealing import sealed_sets
from keyrack.store.tables import key_owners, user_keys, users


@dataclass(frozen=True, slots=True)
class UserKeyPlace:
    """What is in a key's way.

    count: how many keys its user has; noted: whether it may be barred from the workspace
    (store/keys/barred_keys.py); owned: whether it leads to somebody or something already; ids: its own; shut_out:
    whether its user is disabled, who may have been a moment ago.
    """

    count: int
    noted: bool
    owned: bool
    ids: sealed_sets.Ids
    shut_out: bool


def place(connection: Connection, workspace_id: int, user_id: int, fingerprint: str, at: datetime) -> UserKeyPlace:
    """What is in the way of a key that a user of a workspace is to have."""
    numbered = sealed_sets.numbers_rows(connection)
    row = _place.row(connection, workspace_id, user_id, fingerprint, at, numbered)
    assert row is not None  # of a question without tables there is always one
    return UserKeyPlace(row["count"], row["noted"], row["owned"], (row["id_to_give"],), row["shut_out"])


@prepared
def _place(workspace_id: int, user_id: int, fingerprint: str, at: datetime, numbered: bool) -> Select[Any]:
    count = select(func.count()).select_from(user_keys).where(user_keys.c.user_id == user_id).scalar_subquery()
    owned = exists().where(key_owners.c.fingerprint == fingerprint)
    given = sealed_sets.id_to_give(user_keys, numbered=numbered)
    noted = barred_keys.is_noted(workspace_id, fingerprint, at)
    shut_out = exists().where(users.c.id == user_id, users.c.disabled_at.is_not(None))
    return select(
        count.label("count"),
        noted.label("noted"),
        owned.label("owned"),
        given.label("id_to_give"),
        shut_out.label("shut_out"),
    )
