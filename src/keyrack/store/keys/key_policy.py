"""Users' keys that a policy of keys may not take; must decide nothing."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, Row, and_, func, or_, select

from keyrack.store.tables import user_keys, users


def suspects(
    connection: Connection, workspace_id: int, types: Collection[str], rsa_characters: int, limit: int
) -> list[Row[Any]]:
    """Keys of other types than these, and RSA keys whose line is no longer than so many characters, by their owner:
    title, fingerprint, public_key, user.
    """
    held = user_keys.c
    short = and_(held.key_type == "ssh-rsa", func.length(held.public_key) <= rsa_characters)
    found = (
        select(held.title, held.fingerprint, held.public_key, users.c.name.label("user"))
        .join(users, users.c.id == held.user_id)
        .where(held.workspace_id == workspace_id, held.key_type.is_not(None), users.c.disabled_at.is_(None))
        .where(or_(held.key_type.not_in(types), short))
        .order_by(users.c.name, held.id)
        .limit(limit)
    )
    return list(connection.execute(found))
