"""Questions about the logins that hosts report: up to which batch, and with whose keys; must decide nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, select

from keyrack.store.dialect import dialect_insert
from keyrack.store.engine.prepared import among, prepared
from keyrack.store.keys import key_owners
from keyrack.store.tables import credentials, reported_logins


@dataclass(frozen=True, slots=True)
class ReportedLogins:
    """How far one host has reported: its last batch, and of the hour from hour_from on how many logins became events
    and how many were left out.
    """

    batch: str
    hour_from: datetime
    events: int
    left_out: int


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A registered key: its label or title, and its user; user_id None, user "": a credential that is no user's key."""

    name: str
    user_id: int | None = None
    user: str = ""


@prepared
def _of_server(server_id: int) -> Select[Any]:
    return select(reported_logins).where(reported_logins.c.server_id == server_id)


def of_server(connection: Connection, server_id: int) -> ReportedLogins | None:
    """How far a host has reported; None before its first batch."""
    row = _of_server.row(connection, server_id)
    return None if row is None else ReportedLogins(row.batch, row.hour_from, row.events, row.left_out)


def keep(connection: Connection, server_id: int, reported: ReportedLogins) -> None:
    """Note how far a host has reported."""
    values = {
        "batch": reported.batch,
        "hour_from": reported.hour_from,
        "events": reported.events,
        "left_out": reported.left_out,
    }
    statement = dialect_insert(connection, reported_logins).values(server_id=server_id, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=[reported_logins.c.server_id], set_=values))


@prepared
def _on_server(server_id: int, fingerprints: Sequence[str]) -> Select[Any]:
    statement = select(credentials.c.fingerprint, credentials.c.label).order_by(credentials.c.id.desc())
    return statement.where(credentials.c.server_id == server_id, among(credentials.c.fingerprint, fingerprints))


def known_keys(
    connection: Connection, workspace_id: int, server_id: int, fingerprints: Sequence[str]
) -> dict[str, KnownKey]:
    """By fingerprint those of these keys that a user of the workspace registered or that are on this server."""
    held = {row.fingerprint: KnownKey(row.label) for row in _on_server.rows(connection, server_id, fingerprints)}
    for fingerprint, owner in key_owners.of_keys(connection, workspace_id, fingerprints).items():
        name = held[fingerprint].name if fingerprint in held else owner.title or ""
        held[fingerprint] = KnownKey(name, owner.user_id, owner.name)
    return held
