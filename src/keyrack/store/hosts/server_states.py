"""The states that servers are looked for by, as conditions on their rows; must ask nothing by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Text, and_, cast, exists, or_

from keyrack.store.tables import host_keys, servers
from keyrack.store.tables.hosts import ROLLED_BACK_AT

BEHIND, NEW, HOST_KEY, PROBLEMS = "behind", "new", "host-key", "problems"


HAS_HOST = servers.c.agent_secret_hash.is_not(None)
"""Whether a host was ever enrolled as a server: a server without one waits for no acknowledgement."""


def _reported(*pieces: str) -> Any:
    """Whether the facts, as JSON, contain one of these pieces; a host's own texts do not, as JSON escapes quotes."""
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
        '"enforcement": "un',  # undone, unproven, unmanaged, uninstalled: in one, as each piece costs a search
    ),
    and_(servers.c.mode == "auto", _reported('"shut_out": "'), ~_reported('"shut_out": "nobody"')),
)
"""Its host reports something wrong, two machines use its identity, or the database was rolled back."""
CONDITIONS: Mapping[str, Any] = {
    BEHIND: and_(servers.c.enrolled_at.is_not(None), servers.c.applied_revision < servers.c.revision),
    NEW: servers.c.enrolled_at.is_(None),
    HOST_KEY: STRANGE_HOST_KEY,
    PROBLEMS: IN_TROUBLE,
}
