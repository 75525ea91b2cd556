"""Questions about when keys were last used, and where; must decide nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, select

from keyrack.store.engine.prepared import among, prepared
from keyrack.store.tables import key_uses, servers

GIT = 0
"""What key_uses has for a use with Git, in place of the id of a server."""


@dataclass(frozen=True, slots=True)
class Use:
    """The last use of a key on one server, or with Git where server_id and server are None; address: the client's."""

    server_id: int | None
    server: str | None
    at: datetime
    address: str


@prepared
def _of_keys(fingerprints: Sequence[str], server_id: int | None) -> Select[Any]:
    statement = (
        select(key_uses, servers.c.name, servers.c.workspace_id)
        .outerjoin(servers, servers.c.id == key_uses.c.server_id)
        .where(among(key_uses.c.fingerprint, fingerprints))
        .order_by(key_uses.c.last_used_at.desc())
    )
    return statement if server_id is None else statement.where(key_uses.c.server_id == server_id)


def of_keys(
    connection: Connection, workspace_id: int, fingerprints: Iterable[str], *, server_id: int | None = None
) -> dict[str, tuple[Use, ...]]:
    """The last uses of keys, by fingerprint, newest first: on all servers of a workspace and with Git, or on server_id
    alone.
    """
    uses_of: dict[str, list[Use]] = {}
    for row in _of_keys.rows(connection, sorted(set(fingerprints)), server_id):
        if row.server_id == GIT:
            uses_of.setdefault(row.fingerprint, []).append(Use(None, None, row.last_used_at, row.address))
        elif row.workspace_id == workspace_id:
            uses_of.setdefault(row.fingerprint, []).append(Use(row.server_id, row.name, row.last_used_at, row.address))
    return {fingerprint: tuple(uses) for fingerprint, uses in uses_of.items()}
