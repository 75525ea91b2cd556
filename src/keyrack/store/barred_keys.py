"""Whether a key may be registered in a workspace, as a part of questions that ask for more; must decide nothing."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, exists, or_

from keyrack.store.ending_tables import expired_keys
from keyrack.store.tables import credentials, revoked_keys, servers, user_keys


def is_noted(workspace_id: int, fingerprint: str, at: datetime) -> ColumnElement[bool]:
    """A condition: the key was revoked everywhere in this workspace, or an end of it came there.

    False of nearly every key that is entered: where it is true, store/revoked_keys.py and store/expired_keys.py say
    what there is. Arguments of a prepared question.
    """
    revoked = exists().where(revoked_keys.c.workspace_id == workspace_id, revoked_keys.c.fingerprint == fingerprint)
    expired = exists().where(expired_keys.c.workspace_id == workspace_id, expired_keys.c.fingerprint == fingerprint)
    # What ended a moment ago is not noted yet; temporary keys have no end that counts.
    of_servers = exists().where(
        servers.c.id == credentials.c.server_id,
        servers.c.workspace_id == workspace_id,
        credentials.c.fingerprint == fingerprint,
        credentials.c.expires_at <= at,
        credentials.c.temporary.is_(False),
    )
    of_users = exists().where(
        user_keys.c.fingerprint == fingerprint,
        user_keys.c.workspace_id == workspace_id,
        user_keys.c.expires_at <= at,
    )
    return or_(revoked, expired, of_servers, of_users)
