"""What must be known before a user's key is entered, asked at once; must decide nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, case, exists, func, select

from keyrack.model import Actor
from keyrack.store.engine.prepared import prepared
from keyrack.store.keys import ended_keys
from keyrack.store.people.standing import Standing, asking, proofs, taken
from keyrack.store.rows import ONE_ROW
from keyrack.store.sealing import sealed_sets
from keyrack.store.tables import key_owners, user_keys, users


@dataclass(frozen=True, slots=True)
class UserKeyPlace:
    """What is in a key's way.

    full: whether its user has as many keys as one may; ended: whether it was revoked or expired in the
    workspace (store/keys/ended_keys.py); owned: whether it leads to somebody or something already; ids: its own; owner:
    what is known of its user, as the rows say now, and of the actor's proof where that is who asks.
    """

    full: bool
    ended: bool
    owned: bool
    ids: sealed_sets.Ids
    owner: Standing


def place(
    connection: Connection, actor: Actor, user_id: int, fingerprint: str, at: datetime, *, most: int
) -> UserKeyPlace:
    """What is in the way of a key that a user of the actor's workspace is to have; most: how many one may have."""
    numbered = sealed_sets.numbers_rows(connection)
    proof = proofs(actor)
    row = _place.row(connection, actor.workspace_id, user_id, fingerprint, at, most, most - 1, numbered, *proof)
    assert row is not None  # of a question whose first table has one row there is always one
    return UserKeyPlace(row["full"], row["ended"], row["owned"], (row["id_to_give"],), taken(row))


@prepared
def _place(
    workspace_id: int,
    user_id: int,
    fingerprint: str,
    at: datetime,
    most: int,
    before: int,
    numbered: bool,
    token_id: int | None,
    access_key: str | None,
    web_session_id: int | None,
) -> Select[Any]:
    mine = select(user_keys.c.id).where(user_keys.c.user_id == user_id)
    # Nothing is counted before all users together can have so many, and then no further than it has to.
    as_many = select(func.max(user_keys.c.id)).scalar_subquery() >= most
    full = case((as_many, mine.limit(1).offset(before).exists()), else_=False)
    owned = exists().where(key_owners.c.fingerprint == fingerprint)
    given = sealed_sets.id_to_give(user_keys, numbered=numbered)
    ended = ended_keys.has_ended(workspace_id, fingerprint, at)
    return select(
        full.label("full"),
        ended.label("ended"),
        owned.label("owned"),
        given.label("id_to_give"),
        *asking(user_id, at, token_id, access_key, web_session_id),
    ).select_from(ONE_ROW.outerjoin(users, users.c.id == user_id))
