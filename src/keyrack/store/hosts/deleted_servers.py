"""Questions about deleted servers, whose hosts still have to hear of it; must decide nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, select, union

from keyrack.model import Page, Place
from keyrack.ssh.names import spellings
from keyrack.store.engine.prepared import prepared
from keyrack.store.rows import page
from keyrack.store.sealing import sealed, sealed_sets, sealed_tables, seals
from keyrack.store.tables import credentials, deleted_server_keys, deleted_servers, revocations, servers
from keyrack.store.tables.columns import UNREADABLE


@dataclass(frozen=True, slots=True)
class DeletedServer:
    """A server that was deleted. revision: of its host's last document; acknowledged_at: when the host said that it
    obeys that document, None before; remove_keys: path and fingerprint of each key that the host must take out of its
    files; holds: whether its row is as Keyrack wrote it.
    """

    id: int
    workspace_id: int
    host: str
    name: str
    address: str
    revision: int
    remove_keys: Sequence[Sequence[str]]
    deleted_at: datetime
    deleted_by: str
    acknowledged_at: datetime | None
    holds: bool


def secret_of(connection: Connection, server_id: int) -> bytes | None:
    """The hash of the secret of a server's agent, while the server is not deleted; None where it has none."""
    return connection.execute(select(servers.c.agent_secret_hash).where(servers.c.id == server_id)).scalar()


def add(connection: Connection, values: Mapping[str, Any]) -> None:
    """Insert one (the columns of the table)."""
    sealed.insert_row(connection, deleted_servers, values)


def renumber(connection: Connection, server_id: int, revision: int) -> None:
    """Give its last document another revision, which its host has not acknowledged."""
    values = {"revision": revision, "acknowledged_at": None}
    sealed.change(connection, deleted_servers, sealed.row_of(server_id), values=values)


def keep_keys(connection: Connection, server_id: int, granted: Iterable[tuple[str, str]]) -> None:
    """Note every key that a server's host was given or told to refuse, before the server goes.

    granted: those that come from grants, as fingerprint and line; the others are read from the server's own rows.
    """
    own = union(
        *(
            select(table.c.fingerprint, table.c.public_key).where(table.c.server_id == server_id)
            for table in (credentials, revocations)
        )
    )
    entered = {row.fingerprint: row.public_key for row in connection.execute(own) if row.public_key != UNREADABLE}
    lines = dict(granted) | entered
    rows = [{"server_id": server_id, "fingerprint": key, "public_key": line} for key, line in sorted(lines.items())]
    sealed_sets.insert_many(connection, deleted_server_keys, rows)


def keys_of(connection: Connection, server_id: int) -> tuple[str, ...] | None:
    """The lines of the keys that a deleted server's host was given or told to refuse; None where others changed,
    added or deleted any of them.
    """
    rows = connection.execute(
        select(deleted_server_keys)
        .where(deleted_server_keys.c.server_id == server_id)
        .order_by(deleted_server_keys.c.fingerprint)
    ).all()
    if not all(sealed.sound(connection, deleted_server_keys, row) for row in rows):
        return None
    return (
        tuple(row.public_key for row in rows)
        if sealed_tables.is_complete(connection, deleted_server_keys, server_id)
        else None
    )


def get(connection: Connection, server_id: int) -> DeletedServer | None:
    """A deleted server of any workspace, or None: for hosts, which prove by a secret which server they are."""
    row = connection.execute(select(deleted_servers).where(deleted_servers.c.server_id == server_id)).one_or_none()
    return None if row is None else _record(connection, row)


def by_agent_secret(connection: Connection, secret_hash: bytes) -> DeletedServer | None:
    """The deleted server whose agent proves itself with this secret, or None."""
    row = _by_agent_secret.row(connection, secret_hash)
    return None if row is None else _record(connection, row)


@prepared
def _by_agent_secret(secret_hash: bytes) -> Select[Any]:
    return select(deleted_servers).where(deleted_servers.c.agent_secret_hash == secret_hash)


def find(
    connection: Connection, workspace_id: int, *, offset: int, limit: int, after: Place | None = None
) -> Page[DeletedServer]:
    """A page of a workspace's deleted servers, the highest id first."""
    statement = select(deleted_servers).where(deleted_servers.c.workspace_id == workspace_id)
    ordered = statement.order_by(deleted_servers.c.server_id.desc())
    return page(connection, ordered, lambda row: _record(connection, row), offset=offset, limit=limit, after=after)


def ids_named(connection: Connection, workspace_id: int, name: str) -> list[int]:
    """The ids of a workspace's deleted servers that had a name, oldest first."""
    had = (deleted_servers.c.workspace_id == workspace_id, deleted_servers.c.name.in_(spellings(name)))
    statement = select(deleted_servers.c.server_id).where(*had).order_by(deleted_servers.c.server_id)
    return list(connection.execute(statement).scalars())


def acknowledge(connection: Connection, server_id: int, at: datetime) -> bool:
    """Note that a deleted server's host obeys its last document; False if that was noted before."""
    waiting = (deleted_servers.c.server_id == server_id, deleted_servers.c.acknowledged_at.is_(None))
    return bool(sealed.change(connection, deleted_servers, *waiting, values={"acknowledged_at": at}))


def _record(connection: Connection, row: Row[Any] | Mapping[str, Any]) -> DeletedServer:
    values = seals.unsealed(row)
    del values["agent_secret_hash"]
    holds = sealed.sound(connection, deleted_servers, row)
    return DeletedServer(id=values.pop("server_id"), **values, holds=holds)
