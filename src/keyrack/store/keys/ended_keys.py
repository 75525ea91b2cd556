"""Whether a key was revoked or expired in a workspace, as a condition for other questions; must decide nothing."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, exists, or_

from keyrack.store.keys import expired_keys
from keyrack.store.tables import revoked_keys


def has_ended(workspace_id: int, fingerprint: str, at: datetime) -> ColumnElement[bool]:
    """A condition: the key was revoked everywhere in this workspace, or has expired there. The arguments may be those
    of a prepared question. Where it is true, store/keys/revoked_keys.py and store/keys/expired_keys.py tell more.
    """
    revoked = exists().where(revoked_keys.c.workspace_id == workspace_id, revoked_keys.c.fingerprint == fingerprint)
    ends = (
        exists().where(source.fingerprint == fingerprint, *source.conditions)
        for source in expired_keys.ends(workspace_id, at)
    )
    return or_(revoked, *ends)
