"""Questions about grants: whom they let in, where and when; must decide nothing.

at: the time now. A grant is in force from starts_at on (at once if it has none) and before expires_at.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, CompoundSelect, Connection, Select, and_, or_, select, union

from keyrack.model import Grant, Page, Window
from keyrack.store.engine.prepared import PendingRows, prepared
from keyrack.store.keys.terms import in_force
from keyrack.store.rows import inserted, paged
from keyrack.store.sealing import sealed, seals
from keyrack.store.tables import (
    grants,
    group_members,
    server_tags,
    servers,
    users,
)

MAX_ALIKE = 100
GrantPlace = tuple[int | None, int | None, int | None, str | None]


def with_users(question: Select[Any]) -> Select[Any]:
    """A question for grants, joined with the users of each: the one whom it names, or the members of its group."""
    return (
        question.select_from(grants)
        .outerjoin(group_members, group_members.c.group_id == grants.c.group_id)
        .join(users, or_(users.c.id == grants.c.user_id, users.c.id == group_members.c.user_id))
    )


def begun(at: datetime) -> ColumnElement[bool]:
    """A condition: a grant has no start, or its start has come."""
    return or_(grants.c.starts_at.is_(None), grants.c.starts_at <= at)


@paged
def _grants_of_workspace(workspace_id: int) -> Select[Any]:
    return select(grants).where(grants.c.workspace_id == workspace_id).order_by(grants.c.id)


@prepared
def _grants_like(
    workspace_id: int,
    system_user: str,
    user_id: int | None,
    group_id: int | None,
    server_id: int | None,
    tag: str | None,
    besides: int,
) -> Select[Any]:
    same = [grants.c.workspace_id == workspace_id, grants.c.system_user == system_user, grants.c.id != besides]
    for column, value in ((grants.c.user_id, user_id), (grants.c.group_id, group_id), (grants.c.server_id, server_id)):
        same.append(column.is_(None) if value is None else column == value)
    same.append(grants.c.tag.is_(None) if tag is None else grants.c.tag == tag)
    return select(grants).where(*same).order_by(grants.c.id).limit(MAX_ALIKE)


def grants_like(
    connection: Connection, workspace_id: int, system_user: str, place: GrantPlace, besides: int = 0
) -> tuple[Grant, ...]:
    """The grants that are as Keyrack wrote them, oldest first, at most MAX_ALIKE, for an account at a place. place: ids
    of user, group and server, and a tag; the last two None for all servers. besides: the id of a grant to leave out.
    """
    rows = _grants_like.rows(connection, workspace_id, system_user, *place, besides)
    return tuple(grant_of(row) for row in rows if sealed.sound(connection, grants, row))


def page_of_grants(connection: Connection, workspace_id: int, window: Window) -> Page[Grant]:
    """A page of a workspace's grants, oldest first."""
    return _grants_of_workspace.page(connection, grant_of, window, workspace_id)


def add_grant(connection: Connection, values: Mapping[str, Any]) -> int:
    """Insert a grant (the columns of the table); answers its id."""
    return inserted(connection, grants, values)


@prepared
def _find_grants(workspace_id: int, grant_id: int | None = None) -> Select[Any]:
    statement = select(grants).where(grants.c.workspace_id == workspace_id).order_by(grants.c.id)
    return statement if grant_id is None else statement.where(grants.c.id == grant_id)


def find_grants(connection: Connection, workspace_id: int) -> tuple[Grant, ...]:
    """All grants of a workspace, oldest first."""
    return tuple(grant_of(row) for row in _find_grants.rows(connection, workspace_id))


def get_grant(connection: Connection, workspace_id: int, grant_id: int) -> Grant | None:
    """A grant of this workspace, or None."""
    row = _find_grants.row(connection, workspace_id, grant_id)
    return None if row is None else grant_of(row)


@prepared
def _grants_to_begin(at: datetime, limit: int) -> Select[Any]:
    due = (grants.c.begun_at.is_(None), grants.c.starts_at.is_not(None), grants.c.starts_at <= at)
    return select(grants).where(*due).order_by(grants.c.starts_at).limit(limit)


def grants_to_begin(connection: Connection, at: datetime, limit: int) -> tuple[Grant, ...]:
    """Grants whose start has come and whose hosts were not told so yet, the earliest first, at most `limit`."""
    return tuple(grant_of(row) for row in _grants_to_begin.rows(connection, at, limit))


def note_begun(connection: Connection, grant_id: int, at: datetime) -> None:
    """Note that hosts were told that a grant began."""
    sealed.change(connection, grants, sealed.row_of(grant_id), values={"begun_at": at})


def change_grant(connection: Connection, grant_id: int, values: Mapping[str, Any], *, at: datetime) -> None:
    """Change a grant (columns of the table); another end will be announced anew."""
    unnoticed = {"noticed_at": None, "renewed_at": at} if "expires_at" in values else {}
    sealed.change(connection, grants, sealed.row_of(grant_id), values={**values, **unnoticed})


def remove_grant(connection: Connection, grant_id: int) -> None:
    """Delete a grant."""
    sealed.remove(connection, grants, sealed.row_of(grant_id))


@prepared
def _grants_of_group(group_id: int) -> Select[Any]:
    return select(grants).where(grants.c.group_id == group_id).order_by(grants.c.id)


def grants_of_group(connection: Connection, group_id: int) -> tuple[Grant, ...]:
    """The grants of one group, ended or not."""
    return tuple(grant_of(row) for row in _grants_of_group.rows(connection, group_id))


@prepared
def _grants_in_force(user_id: int, at: datetime) -> Select[Any]:
    return select(grants).where(_grants_of_user(user_id), in_force(grants.c.expires_at, at)).order_by(grants.c.id)


def grants_of_user(connection: Connection, user_id: int, at: datetime) -> tuple[Grant, ...]:
    """The grants of a user, by name or by group, that have not ended; also those that have not begun."""
    return tuple(grant_of(row) for row in _grants_in_force.rows(connection, user_id, at))


def servers_of_grant(connection: Connection, grant: Grant) -> frozenset[int]:
    """The ids of the servers that a grant opens, or will open once it begins."""
    if grant.server_id is not None:
        return frozenset((grant.server_id,))
    if grant.all_servers:
        return frozenset(_servers_of_workspace.values(connection, grant.workspace_id))
    return frozenset(_servers_with_tag.values(connection, grant.workspace_id, grant.tag or ""))


@prepared
def _servers_of_workspace(workspace_id: int) -> Select[Any]:
    return select(servers.c.id).where(servers.c.workspace_id == workspace_id)


@prepared
def _servers_with_tag(workspace_id: int, tag: str) -> Select[Any]:
    return (
        select(server_tags.c.server_id)
        .join(servers, servers.c.id == server_tags.c.server_id)
        .where(server_tags.c.tag == tag, servers.c.workspace_id == workspace_id)
    )


def servers_of_user(connection: Connection, user_id: int) -> frozenset[int]:
    """The ids of the servers that a user's grants name or reach, also grants that have ended or not begun."""
    return frozenset(_servers_of_user.values(connection, user_id))


def enqueue_servers_of_user(connection: Connection, user_id: int) -> PendingRows:
    """The same without waiting: rows with a server_id each."""
    return _servers_of_user.enqueue(connection, user_id)


@prepared
def _servers_of_user(user_id: int) -> CompoundSelect[Any]:
    mine = _grants_of_user(user_id)
    direct = select(grants.c.server_id).where(mine, grants.c.server_id.is_not(None))
    tagged = (
        select(server_tags.c.server_id)
        .join(grants, grants.c.tag == server_tags.c.tag)
        .join(
            servers,
            and_(servers.c.id == server_tags.c.server_id, servers.c.workspace_id == grants.c.workspace_id),
        )
        .where(mine)
    )
    everywhere = (
        select(servers.c.id)
        .join(grants, grants.c.workspace_id == servers.c.workspace_id)
        .where(mine, grants.c.all_servers.is_(True))
    )
    return union(direct, tagged, everywhere)


def applies(server_id: int, workspace_id: int, at: datetime) -> ColumnElement[bool]:
    """A condition: a grant has begun, has not ended and opens a server."""
    tags = select(server_tags.c.tag).where(server_tags.c.server_id == server_id)
    return and_(
        or_(grants.c.server_id == server_id, grants.c.tag.in_(tags), grants.c.all_servers.is_(True)),
        in_time(workspace_id, at),
    )


def in_time(workspace_id: int, at: datetime) -> ColumnElement[bool]:
    """A condition: a grant of a workspace has begun and has not ended."""
    return and_(grants.c.workspace_id == workspace_id, begun(at), in_force(grants.c.expires_at, at))


def sound_grants(connection: Connection, workspace_id: int) -> tuple[Grant, ...]:
    """The grants of a workspace that are as Keyrack wrote them."""
    rows = _find_grants.rows(connection, workspace_id)
    return tuple(grant_of(row) for row in rows if sealed.holds(connection, grants, row))


def grant_of(row: Any) -> Grant:
    """A grant from its row."""
    return Grant(**seals.unsealed(row))


def _grants_of_user(user_id: int) -> ColumnElement[bool]:
    member_of = select(group_members.c.group_id).where(group_members.c.user_id == user_id)
    return or_(grants.c.user_id == user_id, grants.c.group_id.in_(member_of))
