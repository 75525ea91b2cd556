"""Questions about challenges, which users sign to prove that a key is theirs; must decide nothing."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Delete, Select, delete, select

from keyrack.store.engine.prepared import prepared
from keyrack.store.rows import inserted
from keyrack.store.tables import key_challenges


def add(
    connection: Connection,
    *,
    user_id: int,
    fingerprint: str,
    nonce: str,
    expires_at: datetime,
    now: datetime,
    most: int,
) -> None:
    """Note a challenge; delete those that have expired, and the user's oldest so that `most` remain."""
    _forget_ended.run(connection, now)
    for old in _of_user.values(connection, user_id)[most - 1 :]:
        _forget.run(connection, old)
    values = {"user_id": user_id, "fingerprint": fingerprint, "nonce": nonce, "expires_at": expires_at}
    inserted(connection, key_challenges, values)


def take(connection: Connection, *, user_id: int, fingerprint: str, nonce: str) -> datetime | None:
    """Use a challenge up; answers when it expires, or None if this user has no such challenge for this key."""
    ends: datetime | None = _ends.value(connection, user_id, fingerprint, nonce)
    _use_up.run(connection, user_id, nonce)
    return ends


@prepared
def _of_user(user_id: int) -> Select[Any]:
    return select(key_challenges.c.id).where(key_challenges.c.user_id == user_id).order_by(key_challenges.c.id.desc())


@prepared
def _ends(user_id: int, fingerprint: str, nonce: str) -> Select[Any]:
    return select(key_challenges.c.expires_at).where(
        key_challenges.c.user_id == user_id,
        key_challenges.c.fingerprint == fingerprint,
        key_challenges.c.nonce == nonce,
    )


@prepared
def _use_up(user_id: int, nonce: str) -> Delete:
    return delete(key_challenges).where(key_challenges.c.user_id == user_id, key_challenges.c.nonce == nonce)


@prepared
def _forget(challenge_id: int) -> Delete:
    return delete(key_challenges).where(key_challenges.c.id == challenge_id)


@prepared
def _forget_ended(at: datetime) -> Delete:
    return delete(key_challenges).where(key_challenges.c.expires_at <= at)
