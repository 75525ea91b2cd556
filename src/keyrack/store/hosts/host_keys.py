"""Questions about servers' host keys; must decide nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, select

from keyrack.store.engine.prepared import among, prepared
from keyrack.store.rows import inserted
from keyrack.store.sealing import sealed, seals
from keyrack.store.tables import host_keys


@dataclass(frozen=True, slots=True)
class HostKey:
    """A host key of a server. public_key: type and base64; shown: whether the host's last report had it; confirmed:
    whether somebody confirmed it.
    """

    id: int
    server_id: int
    public_key: str
    fingerprint: str
    port: int
    shown: bool
    confirmed: bool
    first_at: datetime
    confirmed_at: datetime | None
    confirmed_by: str | None


@prepared
def _of_servers(server_ids: Iterable[int]) -> Select[Any]:
    return select(host_keys).where(among(host_keys.c.server_id, server_ids)).order_by(host_keys.c.id)


def of_servers(connection: Connection, server_ids: Iterable[int]) -> dict[int, list[HostKey]]:
    """The host keys of servers, by server, without rows that are not as Keyrack wrote them."""
    keys: dict[int, list[HostKey]] = {}
    for row in _of_servers.rows(connection, sorted(server_ids)):
        if sealed.holds(connection, host_keys, row):
            keys.setdefault(row.server_id, []).append(HostKey(**seals.unsealed(row)))
    return keys


def of_server(connection: Connection, server_id: int) -> list[HostKey]:
    """The host keys of one server, as of_servers."""
    return of_servers(connection, (server_id,)).get(server_id, [])


def add(connection: Connection, values: Mapping[str, Any]) -> int:
    """Insert a host key (the columns of the table); answers its id."""
    return inserted(connection, host_keys, values)


def change(connection: Connection, key_id: int, values: Mapping[str, Any]) -> None:
    """Change columns of a host key."""
    sealed.change(connection, host_keys, sealed.row_of(key_id), values=values)


def remove(connection: Connection, key_id: int) -> None:
    """Delete a host key."""
    sealed.remove(connection, host_keys, sealed.row_of(key_id))
