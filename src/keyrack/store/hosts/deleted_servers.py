"""Questions about servers that were deleted and whose hosts have not said yet that they know; must decide nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, insert, select, union, update

from keyrack.model import Page, Place
from keyrack.store.dialect import dialect_insert
from keyrack.store.engine.prepared import prepared
from keyrack.store.rows import page
from keyrack.store.tables import credentials, deleted_server_keys, deleted_servers, revocations, servers


@dataclass(frozen=True, slots=True)
class DeletedServer:
    """A server that was deleted. revision: of the last document of its host; acknowledged_at: when the host said that
    it obeys that one, None while it has not; remove_keys: path and fingerprint of what it must take out of its files;
    seal: over what its host is told, see core.deleted_servers.
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
    seal: bytes


def secret_of(connection: Connection, server_id: int) -> bytes | None:
    """The hash of the secret with which a server's host proves itself; None while it has none."""
    return connection.execute(select(servers.c.agent_secret_hash).where(servers.c.id == server_id)).scalar()


def add(connection: Connection, values: Mapping[str, Any]) -> None:
    """Insert one (the columns of the table)."""
    connection.execute(insert(deleted_servers).values(**values))


def set_seal(connection: Connection, server_id: int, seal: bytes) -> None:
    """Set the seal, which is over the keys as well."""
    connection.execute(update(deleted_servers).where(deleted_servers.c.server_id == server_id).values(seal=seal))


def renumber(connection: Connection, server_id: int, revision: int, seal: bytes) -> None:
    """Give its last document another revision, and the seal over that; nobody has obeyed that one."""
    values = {"revision": revision, "seal": seal, "acknowledged_at": None}
    connection.execute(update(deleted_servers).where(deleted_servers.c.server_id == server_id).values(**values))


def keep_keys(connection: Connection, server_id: int, granted: Iterable[tuple[str, str]]) -> None:
    """Note every key that a server's host was given or told to refuse, before the server goes.

    granted: those that come from grants, as fingerprint and line; the others are read from the server's own rows.
    """
    held = deleted_server_keys
    both = union(
        *(
            select(table.c.server_id, table.c.fingerprint, table.c.public_key).where(table.c.server_id == server_id)
            for table in (credentials, revocations)
        )
    ).subquery()
    # A condition, as SQLite takes ON CONFLICT after a bare SELECT for a join's.
    rows = select(both).where(both.c.server_id == server_id)
    into = dialect_insert(connection, held).from_select(["server_id", "fingerprint", "public_key"], rows)
    connection.execute(into.on_conflict_do_nothing())
    more = [{"server_id": server_id, "fingerprint": key, "public_key": line} for key, line in granted]
    if more:
        connection.execute(dialect_insert(connection, held).on_conflict_do_nothing(), more)


def keys_of(connection: Connection, server_id: int) -> tuple[str, ...]:
    """The lines of the keys that a deleted server's host was given or told to refuse."""
    held = deleted_server_keys
    statement = select(held.c.public_key).where(held.c.server_id == server_id).order_by(held.c.fingerprint)
    return tuple(connection.execute(statement).scalars())


def get(connection: Connection, server_id: int) -> DeletedServer | None:
    """A deleted server of any workspace: for hosts, which prove themselves otherwise."""
    return _one(
        connection.execute(select(deleted_servers).where(deleted_servers.c.server_id == server_id)).one_or_none()
    )


def by_agent_secret(connection: Connection, secret_hash: bytes) -> DeletedServer | None:
    """The deleted server whose agent proves itself with this secret, or None."""
    row = _by_agent_secret.row(connection, secret_hash)
    return None if row is None else _record(row)


@prepared
def _by_agent_secret(secret_hash: bytes) -> Select[Any]:
    return select(deleted_servers).where(deleted_servers.c.agent_secret_hash == secret_hash)


def find(
    connection: Connection, workspace_id: int, *, offset: int, limit: int, after: Place | None = None
) -> Page[DeletedServer]:
    """A page of a workspace's deleted servers, the last one first."""
    statement = select(deleted_servers).where(deleted_servers.c.workspace_id == workspace_id)
    ordered = statement.order_by(deleted_servers.c.server_id.desc())
    return page(connection, ordered, _record, offset=offset, limit=limit, after=after)


def confirm(connection: Connection, server_id: int, at: datetime) -> bool:
    """Note that a deleted server's host obeys its last document; False when it said so before."""
    statement = (
        update(deleted_servers)
        .where(deleted_servers.c.server_id == server_id, deleted_servers.c.acknowledged_at.is_(None))
        .values(acknowledged_at=at)
    )
    return connection.execute(statement).rowcount == 1


def forget(connection: Connection, server_ids: Iterable[int]) -> None:
    """Delete them with their keys."""
    connection.execute(delete(deleted_servers).where(deleted_servers.c.server_id.in_(list(server_ids))))


def _one(row: Row[Any] | None) -> DeletedServer | None:
    return None if row is None else _record(row)


def _record(row: Row[Any] | Mapping[str, Any]) -> DeletedServer:
    values = dict(row if isinstance(row, Mapping) else row._mapping)
    del values["agent_secret_hash"]
    return DeletedServer(id=values.pop("server_id"), **values)
