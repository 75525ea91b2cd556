"""What hosts report about themselves, stored whole: sessions, last uses, when they were seen; must decide nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, or_, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from keyrack.store import sealed
from keyrack.store.tables import credentials, key_uses, servers, sessions, user_keys


def replace_sessions(
    connection: Connection, server_id: int, found: Mapping[str, Mapping[str, Any]], *, live: Collection[str] = ()
) -> None:
    """Make these the live sessions of a server, by their names on the host; those known before stay as they are.

    live: more names of which nothing can be stored, but that are not over where they are known.
    """
    rows = connection.execute(select(sessions.c.host_session).where(sessions.c.server_id == server_id))
    known = set(rows.scalars())
    over = known - found.keys() - set(live)
    if over:
        connection.execute(
            delete(sessions).where(sessions.c.server_id == server_id, sessions.c.host_session.in_(sorted(over)))
        )
    new = [
        {**values, "server_id": server_id, "host_session": name, "ending": False}
        for name, values in found.items()
        if name not in known
    ]
    if new:
        connection.execute(insert(sessions), new)


def ending_sessions(connection: Connection, server_id: int) -> tuple[str, ...]:
    """The names, on the host, of the sessions that a server must end."""
    statement = select(sessions.c.host_session).where(sessions.c.server_id == server_id, sessions.c.ending)
    return tuple(connection.execute(statement.order_by(sessions.c.id)).scalars())


def known_fingerprints(connection: Connection, workspace_id: int, fingerprints: Iterable[str]) -> frozenset[str]:
    """Those of these keys that the workspace has, on a server or with a user."""
    wanted = sorted(set(fingerprints))
    on_servers = (
        select(credentials.c.fingerprint)
        .join(servers, servers.c.id == credentials.c.server_id)
        .where(servers.c.workspace_id == workspace_id, credentials.c.fingerprint.in_(wanted))
    )
    of_users = select(user_keys.c.fingerprint).where(
        user_keys.c.workspace_id == workspace_id, user_keys.c.fingerprint.in_(wanted)
    )
    return frozenset(connection.execute(on_servers.union(of_users)).scalars())


def note_uses(connection: Connection, server_id: int, uses: Iterable[tuple[str, datetime, str]]) -> None:
    """Note when keys were last used on a server: fingerprint, time, address; an earlier time changes nothing."""
    dialect_insert = postgresql_insert if connection.dialect.name == "postgresql" else sqlite_insert
    for fingerprint, at, address in uses:
        statement = dialect_insert(key_uses).values(
            fingerprint=fingerprint, server_id=server_id, last_used_at=at, address=address
        )
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=[key_uses.c.fingerprint, key_uses.c.server_id],
                set_={"last_used_at": at, "address": address},
                where=key_uses.c.last_used_at < at,
            )
        )


def last_uses(connection: Connection, fingerprint: str) -> Mapping[int, tuple[datetime, str]]:
    """When a key was last used and from where, by server id; 0 stands for Git."""
    rows = connection.execute(select(key_uses).where(key_uses.c.fingerprint == fingerprint))
    return {row.server_id: (row.last_used_at, row.address) for row in rows}


def note_seen(connection: Connection, server_ids: Iterable[int], at: datetime) -> None:
    """Note that these hosts were heard of; one statement for all of them, and no revision."""
    before = or_(servers.c.seen_at.is_(None), servers.c.seen_at < at)
    sealed.change(connection, servers, servers.c.id.in_(sorted(server_ids)), before, values={"seen_at": at})
