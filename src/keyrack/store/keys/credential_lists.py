"""Pages of a server's credentials; must decide nothing."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, func, literal, or_, select, true, type_coerce

from keyrack.model import Credential, Page, Place, Window
from keyrack.store import counts
from keyrack.store.engine.prepared import page_size, prepared
from keyrack.store.keys.credentials import credential_columns, credential_question, credential_records
from keyrack.store.keys.terms import in_force
from keyrack.store.rows import piece_after
from keyrack.store.sealing import sums
from keyrack.store.search import contains
from keyrack.store.tables import credentials, servers, system_users
from keyrack.store.tables.columns import EPOCH, Moment
from keyrack.store.unchanged import kept


def _ids(server_id: int, at: datetime, sought: str | None) -> Select[Any]:
    """The ids of a server's credentials in force."""
    ids = select(credentials.c.id).where(credentials.c.server_id == server_id, in_force(credentials.c.expires_at, at))
    if sought is None:
        return ids
    by_name = or_(contains(credentials.c.label, sought), contains(system_users.c.username, sought))
    return ids.join(system_users, system_users.c.id == credentials.c.system_user_id).where(by_name)


@prepared
def _page_of_credentials(
    server_id: int,
    workspace_id: int,
    at: datetime,
    sought: str | None,
    offset: int | None,
    limit: int,
    handed_in: bytes | None,
) -> Select[Any]:
    """The rows of a page, and beside each how many there are: for a server of this workspace, with one row, that has no
    credential, where there is none, and no row for any other server.
    """
    chosen = _ids(server_id, at, sought).order_by(credentials.c.id).offset(offset).limit(limit).subquery("page")
    every = select(func.count()).select_from(credentials).where(credentials.c.server_id == server_id)
    if sought is not None:
        every = select(func.count()).select_from(_ids(server_id, at, sought).subquery())
    # Those that have ended are few, and an index has them; to look at each one's end would take longer.
    ended = select(func.count()).select_from(credentials)
    # With a beginning, and the time asked for: of both kinds of plans PostgreSQL thinks then that few have ended.
    now = select(type_coerce(at, Moment)).scalar_subquery()
    ended = ended.where(credentials.c.server_id == server_id, credentials.c.expires_at.between(EPOCH, now))
    ended = ended.correlate(None)
    apart = literal(0) if sought is not None else ended.scalar_subquery()
    beside = (*counts.columns(servers.c.rows_sum, handed_in, every), apart.label("ended"))
    return (
        select(*credential_columns(), *beside)
        .select_from(
            servers.outerjoin(chosen, true())
            .outerjoin(credentials, credentials.c.id == chosen.c.id)
            .outerjoin(system_users, system_users.c.id == credentials.c.system_user_id)
        )
        .where(servers.c.id == server_id, servers.c.workspace_id == workspace_id)
        .order_by(credentials.c.id)
    )


@prepared
def _own_server(server_id: int, workspace_id: int) -> Select[Any]:
    return select(servers.c.id).where(servers.c.id == server_id, servers.c.workspace_id == workspace_id)


@prepared
def _credentials_after(server_id: int, at: datetime, sought: str | None, after: Any, limit: int) -> Select[Any]:
    chosen = (
        _ids(server_id, at, sought).where(credentials.c.id > after).order_by(credentials.c.id).limit(limit).subquery()
    )
    return credential_question().join(chosen, chosen.c.id == credentials.c.id).order_by(credentials.c.id)


def find_credentials(
    connection: Connection,
    workspace_id: int,
    server_id: int,
    *,
    at: datetime,
    search: str = "",
    offset: int,
    limit: int,
    after: Place | None = None,
) -> Page[Credential] | None:
    """A page of a server's credentials in force, oldest first; None where the server is not of this workspace.

    search: part of label or system user. Which ones and how many is answered from an index, and no more than a page of
    them is read and joined.
    """
    return kept(
        connection,
        ("credentials", workspace_id, server_id, search, offset, limit, after),
        lambda: _find_credentials(connection, workspace_id, server_id, at, search, Window(limit, offset, after)),
        at=at,
        until=lambda page: at if page is None else _next_end.value(connection, server_id, at),
    )


@prepared
def _next_end(server_id: int, at: datetime) -> Select[Any]:
    """When the next of a server's credentials ends."""
    ends = credentials.c.expires_at
    return select(func.min(ends)).where(credentials.c.server_id == server_id, ends > at)


def _find_credentials(
    connection: Connection, workspace_id: int, server_id: int, at: datetime, search: str, window: Window
) -> Page[Credential] | None:
    limit, offset, after = window.limit, window.offset, window.after
    sought = search or None
    if after is not None:
        if _own_server.value(connection, server_id, workspace_id) is None:
            return None
        (place,) = after or (0,)
        records = credential_records.all(connection, _credentials_after, server_id, at, sought, place, limit + 1)
        return piece_after([(one, (one.id,)) for one in records], Window(limit, after=after))
    of = ("credentials", server_id)
    before = counts.known(connection, of) if sought is None else counts.NOT_COUNTED
    handed_in = before.mark if sought is None else None
    size = page_size(limit)
    plan, rows = _page_of_credentials.raw(
        connection, server_id, workspace_id, at, sought, offset or None, size, handed_in
    )
    if not rows:
        return None
    *_, mark, total, ended = rows[0]
    total = counts.taken(connection, of, before, mark if sums.tells_changes(mark) else None, total) - ended
    shown = [row[:-3] for row in rows if row[0] is not None]
    items = credential_records.of(connection, plan, shown)
    return Page(items=tuple(items), total=total, offset=offset, limit=limit)
