"""Questions about unmanaged keys: found in hosts' files, where Keyrack did not put them; must decide nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, bindparam, delete, func, literal, select, tuple_, update

from keyrack.model import Page, Place, UnmanagedKey, Window
from keyrack.store.chunks import chunks
from keyrack.store.dialect import dialect_insert
from keyrack.store.engine.prepared import among
from keyrack.store.per_server import per_server
from keyrack.store.rows import page, piece_after
from keyrack.store.tables import credentials, servers, system_users, unmanaged_keys, user_keys, users

BATCH_SIZE = 500


def on_server(connection: Connection, server_id: int) -> tuple[UnmanagedKey, ...]:
    """All unmanaged keys of a server, in any state, without owner and credential_id."""
    rows = connection.execute(select(unmanaged_keys).where(unmanaged_keys.c.server_id == server_id))
    return tuple(UnmanagedKey(**row._mapping) for row in rows)


def known(connection: Connection, server_id: int) -> dict[tuple[str, str, str], Row[Any]]:
    """The rows of a server by account, file and fingerprint, in any state, without their times: hosts may have
    thousands, and to read the times takes as long as to read all the rest.
    """
    columns = [column for column in unmanaged_keys.c if column.name not in ("found_at", "seen_at")]
    rows = connection.execute(select(*columns).where(unmanaged_keys.c.server_id == server_id))
    return {(row.username, row.path, row.fingerprint): row for row in rows}


def find(
    connection: Connection,
    workspace_id: int,
    server_id: int,
    *,
    states: tuple[str, ...],
    offset: int,
    limit: int,
    after: Place | None = None,
) -> Page[UnmanagedKey]:
    """A page of the unmanaged keys of a server in these states, by account, file and line, with their owners in the
    workspace; after: account, file, line and id of the one before.
    """
    order = (unmanaged_keys.c.username, unmanaged_keys.c.path, unmanaged_keys.c.line, unmanaged_keys.c.id)
    mine = (unmanaged_keys.c.server_id == server_id, unmanaged_keys.c.state.in_(states))
    statement = _with_people(workspace_id).where(*mine).order_by(*order)
    if after is None:
        return page(connection, statement, _record, offset=offset, limit=limit)
    if after:
        statement = statement.where(tuple_(*order) > tuple_(*(literal(part) for part in after)))
    keys = [_record(row) for row in connection.execute(statement.limit(limit + 1))]
    placed = [(one, (one.username, one.path, one.line, one.id)) for one in keys]
    return piece_after(placed, Window(limit, after=after))


def counts(connection: Connection, workspace_id: int, *, states: tuple[str, ...]) -> Mapping[int, int]:
    """How many unmanaged keys of a workspace are in these states, by server; servers with none are left out."""
    statement = (
        select(unmanaged_keys.c.server_id, func.count())
        .join(servers, servers.c.id == unmanaged_keys.c.server_id)
        .where(servers.c.workspace_id == workspace_id, unmanaged_keys.c.state.in_(states))
        .group_by(unmanaged_keys.c.server_id)
    )
    return {row[0]: row[1] for row in connection.execute(statement)}


def get(connection: Connection, workspace_id: int, server_id: int, key_id: int) -> UnmanagedKey | None:
    """An unmanaged key of this server, or None. workspace_id: the server's, in which its owner is looked for."""
    statement = _with_people(workspace_id).where(unmanaged_keys.c.server_id == server_id, unmanaged_keys.c.id == key_id)
    row = connection.execute(statement).first()
    return None if row is None else _record(row)


def in_state(connection: Connection, key_ids: Sequence[int], state: str) -> Sequence[Any]:
    """Path and fingerprint of those of these keys, a few hundred at most, that are in a state."""
    if not key_ids:
        return ()
    columns = unmanaged_keys.c.path, unmanaged_keys.c.fingerprint
    statement = select(*columns).where(unmanaged_keys.c.id.in_(key_ids), unmanaged_keys.c.state == state)
    return connection.execute(statement.order_by(unmanaged_keys.c.id)).all()


def add(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert unmanaged keys; those that are there already stay as they are."""
    if rows:
        connection.execute(
            dialect_insert(connection, unmanaged_keys).on_conflict_do_nothing(), [dict(row) for row in rows]
        )


def change(connection: Connection, key_ids: Sequence[int], values: Mapping[str, Any]) -> None:
    """Set columns of unmanaged keys, all to the same values."""
    for some in chunks(key_ids, BATCH_SIZE):
        connection.execute(update(unmanaged_keys).where(unmanaged_keys.c.id.in_(some)).values(**values))


def change_each(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Set columns of unmanaged keys; rows: of each its id as `row_id` and the values of the same columns."""
    if rows:
        values: dict[str, Any] = {name: bindparam(name) for name in rows[0] if name != "row_id"}
        statement = update(unmanaged_keys).where(unmanaged_keys.c.id == bindparam("row_id")).values(values)
        connection.execute(statement, [dict(row) for row in rows])


def forget(connection: Connection, server_id: int, state: str, before: datetime) -> None:
    """Delete those of a server that are in a state and were last seen before a time."""
    connection.execute(
        delete(unmanaged_keys).where(
            unmanaged_keys.c.server_id == server_id, unmanaged_keys.c.state == state, unmanaged_keys.c.seen_at < before
        )
    )


def keep_newest(connection: Connection, server_id: int, state: str, most: int) -> None:
    """Delete those of a server in a state but the `most` that were last seen most recently."""
    mine = (unmanaged_keys.c.server_id == server_id) & (unmanaged_keys.c.state == state)
    newest = (
        select(unmanaged_keys.c.id).where(mine).order_by(unmanaged_keys.c.seen_at.desc(), unmanaged_keys.c.id.desc())
    )
    beyond = newest.offset(most).subquery()
    connection.execute(delete(unmanaged_keys).where(mine, unmanaged_keys.c.id.in_(select(beyond.c.id))))


def to_remove(connection: Connection, server_id: int, state: str) -> tuple[tuple[str, str], ...]:
    """Path and fingerprint of the keys of a server in a state, such as those that its host must remove."""
    return tuple((row.path, row.fingerprint) for row in _in_state.rows(connection, server_id, state))


@per_server
def _in_state(server_ids: Sequence[int], state: str) -> Select[Any]:
    statement = select(unmanaged_keys.c.server_id, unmanaged_keys.c.path, unmanaged_keys.c.fingerprint)
    mine = (among(unmanaged_keys.c.server_id, server_ids), unmanaged_keys.c.state == state)
    return statement.where(*mine).order_by(unmanaged_keys.c.path, unmanaged_keys.c.fingerprint).distinct()


def _with_people(workspace_id: int) -> Any:
    # A key has one owner (key_owners), but min() keeps one row for each key should there ever be two.
    owner = (
        select(func.min(users.c.name))
        .select_from(user_keys.join(users, users.c.id == user_keys.c.user_id))
        .where(user_keys.c.workspace_id == workspace_id, user_keys.c.fingerprint == unmanaged_keys.c.fingerprint)
        .scalar_subquery()
    )
    credential = (
        select(func.min(credentials.c.id))
        .select_from(credentials.join(system_users, system_users.c.id == credentials.c.system_user_id))
        .where(
            and_(
                credentials.c.server_id == unmanaged_keys.c.server_id,
                credentials.c.fingerprint == unmanaged_keys.c.fingerprint,
                system_users.c.username == unmanaged_keys.c.username,
            )
        )
        .scalar_subquery()
    )
    return select(unmanaged_keys, owner.label("owner"), credential.label("credential_id"))


def _record(row: Row[Any]) -> UnmanagedKey:
    return UnmanagedKey(**row._mapping)
