"""Stores what hosts report: sessions, last uses of keys, when they were heard of; must decide nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import CompoundSelect, Connection, Select, Table, delete, literal, or_, select, union_all

from keyrack.store.chunks import chunks
from keyrack.store.dialect import dialect_insert
from keyrack.store.engine.prepared import among, prepared
from keyrack.store.per_server import per_server
from keyrack.store.sealing import sealed
from keyrack.store.tables import credentials, key_uses, offboarding_hosts, revocations, servers, sessions, user_keys

BATCH_SIZE = 500


def session_names(connection: Connection, server_id: int) -> frozenset[str]:
    """The names that a server's host gives its sessions."""
    statement = select(sessions.c.host_session).where(sessions.c.server_id == server_id)
    return frozenset(connection.execute(statement).scalars())


def end_sessions(connection: Connection, server_id: int, names: Sequence[str]) -> None:
    """Forget sessions by the names that the host gives them, a few hundred at most."""
    if names:
        connection.execute(
            delete(sessions).where(sessions.c.server_id == server_id, sessions.c.host_session.in_(names))
        )


def add_sessions(connection: Connection, server_id: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """Note open sessions; rows: all columns but server_id and ending. Those that are known stay as they are."""
    if rows:
        statement = dialect_insert(connection, sessions).on_conflict_do_nothing()
        connection.execute(statement, [{**row, "server_id": server_id, "ending": False} for row in rows])


def ending_sessions(connection: Connection, server_id: int) -> tuple[str, ...]:
    """The names of the sessions that a server's host must end."""
    return tuple(row.host_session for row in _ending_sessions.rows(connection, server_id))


@per_server
def _ending_sessions(server_ids: Sequence[int]) -> Select[Any]:
    statement = select(sessions.c.server_id, sessions.c.host_session)
    return statement.where(among(sessions.c.server_id, server_ids), sessions.c.ending).order_by(sessions.c.id)


CREDENTIALS, REVOCATIONS, OFFBOARDINGS = "credentials", "revocations", "offboardings"
"""What may wait for a host's acknowledgement, as awaited() names it."""


def awaited(connection: Connection, server_ids: Iterable[int]) -> dict[int, frozenset[str]]:
    """By server what waits for its host's acknowledgement; servers without any such thing are left out."""
    by_server: dict[int, set[str]] = {}
    for row in _awaited.rows(connection, tuple(server_ids)):
        by_server.setdefault(row["server_id"], set()).add(row["what"])
    return {server_id: frozenset(what) for server_id, what in by_server.items()}


@prepared
def _awaited(server_ids: Iterable[int]) -> CompoundSelect[Any]:
    def waiting(what: str, table: Table, column: Any) -> Select[Any]:
        mine = select(table.c.server_id, literal(what).label("what"))
        return mine.where(among(table.c.server_id, server_ids), column.is_(None)).distinct()

    return union_all(
        waiting(CREDENTIALS, credentials, credentials.c.acknowledged_at),
        waiting(REVOCATIONS, revocations, revocations.c.acknowledged_at),
        waiting(OFFBOARDINGS, offboarding_hosts, offboarding_hosts.c.acknowledged_at),
    )


def known_fingerprints(connection: Connection, workspace_id: int, fingerprints: Iterable[str]) -> frozenset[str]:
    """Those of these keys that the workspace has, on a server or with a user."""
    known: set[str] = set()
    for wanted in chunks(sorted(set(fingerprints)), BATCH_SIZE):
        on_servers = (
            select(credentials.c.fingerprint)
            .join(servers, servers.c.id == credentials.c.server_id)
            .where(servers.c.workspace_id == workspace_id, credentials.c.fingerprint.in_(wanted))
        )
        of_users = select(user_keys.c.fingerprint).where(
            user_keys.c.workspace_id == workspace_id, user_keys.c.fingerprint.in_(wanted)
        )
        known.update(connection.execute(on_servers.union(of_users)).scalars())
    return frozenset(known)


def note_uses(connection: Connection, server_id: int, uses: Iterable[tuple[str, datetime, str]]) -> None:
    """Note when keys were last used on a server (or GIT of store/keys/uses.py); uses: fingerprint, time, address of
    each. A time that is earlier than the one noted changes nothing.
    """
    rows = [
        {"fingerprint": fingerprint, "server_id": server_id, "last_used_at": at, "address": address}
        for fingerprint, at, address in uses
    ]
    if not rows:
        return
    statement = dialect_insert(connection, key_uses)
    excluded = statement.excluded
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[key_uses.c.fingerprint, key_uses.c.server_id],
            set_={"last_used_at": excluded.last_used_at, "address": excluded.address},
            where=key_uses.c.last_used_at < excluded.last_used_at,
        ),
        rows,
    )


def note_seen(connection: Connection, server_ids: Iterable[int], at: datetime) -> None:
    """Note that these hosts were heard of, by one statement; raises no revision."""
    before = or_(servers.c.seen_at.is_(None), servers.c.seen_at < at)
    sealed.change(connection, servers, servers.c.id.in_(sorted(server_ids)), before, values={"seen_at": at})
