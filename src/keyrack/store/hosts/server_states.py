"""The states that servers are looked for by, as conditions on their rows; must ask nothing by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Text, and_, cast, exists, or_

from keyrack.store.tables import host_keys, servers
from keyrack.store.tables.hosts import ROLLED_BACK_AT

BEHIND, NEW, HOST_KEY, PROBLEMS = "behind", "new", "host-key", "problems"


HAS_HOST = servers.c.agent_secret_hash.is_not(None)
"""Whether a host was ever enrolled as a server: one without has nothing to obey, and nobody to say that it does."""


def _reported(*pieces: str) -> Any:
    """That what a host reported holds one of these pieces, as JSON has it: quotes in the host's texts are escaped."""
    return or_(*(cast(servers.c.facts, Text).contains(piece, autoescape=True) for piece in pieces))


STRANGE_HOST_KEY = exists().where(
    host_keys.c.server_id == servers.c.id, host_keys.c.shown.is_(True), host_keys.c.confirmed.is_(False)
)
"""Its host shows a host key that nobody confirmed."""
IN_TROUBLE = or_(
    servers.c.copied_at.is_not(None),
    servers.c[ROLLED_BACK_AT].is_not(None),
    _reported(
        '"problems": ["',
        '"scan": "',
        '"sessions_unknown": "',
        '"refused": {"',
        '"why": "',
        '"enforcement": "un',  # undone, unproven, unmanaged, uninstalled: one piece, as each is looked for in all facts
    ),
    and_(servers.c.mode == "auto", _reported('"shut_out": "'), ~_reported('"shut_out": "nobody"')),
)
"""By its own word something is wrong there, or nobody is sure which machine it is or what it obeys."""
CONDITIONS: Mapping[str, Any] = {
    BEHIND: and_(servers.c.enrolled_at.is_not(None), servers.c.applied_revision < servers.c.revision),
    NEW: servers.c.enrolled_at.is_(None),
    HOST_KEY: STRANGE_HOST_KEY,
    PROBLEMS: IN_TROUBLE,
}
