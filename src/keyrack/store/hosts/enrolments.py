"""Questions about the one-time tokens with which hosts enrol; must decide nothing."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, select

from keyrack.store.engine.prepared import prepared
from keyrack.store.hosts import servers
from keyrack.store.rows import inserted
from keyrack.store.sealing import sealed
from keyrack.store.tables import enrolments


def add(connection: Connection, server_id: int, secret_hash: bytes, *, at: datetime, expires_at: datetime) -> int:
    """Remember a one-time token with which a host may enrol as this server; answers its id."""
    return inserted(
        connection,
        enrolments,
        {"server_id": server_id, "secret_hash": secret_hash, "created_at": at, "expires_at": expires_at},
    )


def forget_ended(connection: Connection, server_id: int, at: datetime) -> None:
    """Delete a server's one-time tokens that have expired."""
    sealed.remove(connection, enrolments, enrolments.c.server_id == server_id, enrolments.c.expires_at <= at)


def is_valid(connection: Connection, secret_hash: bytes, at: datetime) -> bool:
    """Whether a one-time token enrols a server: known, not used, not expired."""
    return _enrolment.row(connection, secret_hash, at) is not None


@prepared
def _enrolment(secret_hash: bytes, at: datetime) -> Select[Any]:
    return select(enrolments.c.server_id).where(
        enrolments.c.secret_hash == secret_hash, enrolments.c.used_at.is_(None), enrolments.c.expires_at > at
    )


def use(connection: Connection, secret_hash: bytes, at: datetime) -> int | None:
    """Use a one-time token up: the server it enrols, or None when it is unknown, used, expired, or not as Keyrack
    wrote it.
    """
    which = (
        enrolments.c.secret_hash == secret_hash,
        enrolments.c.used_at.is_(None),
        enrolments.c.expires_at > at,
    )
    server_id = _enrolment.value(connection, secret_hash, at)
    if server_id is None or not servers.complete(connection, server_id):
        return None
    used = sealed.change(connection, enrolments, *which, values={"used_at": at})
    return next((row["server_id"] for row in used if sealed.sound(connection, enrolments, row)), None)
