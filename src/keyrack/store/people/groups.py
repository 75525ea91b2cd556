"""Questions about groups and their members; must decide nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, select

from keyrack.model import Page, Window
from keyrack.ssh.names import spellings
from keyrack.store.engine.prepared import Row, among, prepared
from keyrack.store.rows import first, inserted, paged_in_tree
from keyrack.store.sealing import sealed
from keyrack.store.search import contains
from keyrack.store.tables import group_members, groups, users


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A group without its members."""

    id: int
    name: str
    created_at: datetime


@paged_in_tree
def _groups(workspace_id: int, sought: str | None) -> Select[Any]:
    statement = select(groups).where(groups.c.workspace_id == workspace_id).order_by(groups.c.name)
    return statement if sought is None else statement.where(contains(groups.c.name, sought))


def page(connection: Connection, workspace_id: int, window: Window, *, search: str) -> Page[GroupRow]:
    """A page of a workspace's groups, by name; search: part of the name, in any case."""
    return _groups.page(connection, _record, window, workspace_id, search or None)


@prepared
def _by_name(workspace_id: int, name: str) -> Select[Any]:
    return select(groups).where(groups.c.workspace_id == workspace_id, groups.c.name == name)


def by_name(connection: Connection, workspace_id: int, name: str) -> GroupRow | None:
    """The group with this name, or None, also if others altered its row."""
    row = first(_by_name.row(connection, workspace_id, one) for one in spellings(name))
    return _record(row) if row is not None and sealed.sound(connection, groups, row) else None


@prepared
def _member_names(group_id: int) -> Select[Any]:
    named = select(users.c.name).join(group_members, group_members.c.user_id == users.c.id)
    return named.where(group_members.c.group_id == group_id).order_by(users.c.name)


def member_names(connection: Connection, group_id: int) -> tuple[str, ...]:
    """The names of a group's members, in order."""
    return tuple(_member_names.values(connection, group_id))


def remove(connection: Connection, group_id: int) -> None:
    """Delete a group with its grants."""
    sealed.remove(connection, groups, sealed.row_of(group_id))


def _record(row: Row) -> GroupRow:
    return GroupRow(row.id, row.name, row.created_at)


def add_group(connection: Connection, workspace_id: int, name: str, at: datetime) -> int:
    """Insert a group; answers its id."""
    return inserted(connection, groups, {"workspace_id": workspace_id, "name": name, "created_at": at})


def group_id(connection: Connection, workspace_id: int, name: str) -> int | None:
    """The id of the group with this name, as by_name."""
    group = by_name(connection, workspace_id, name)
    return None if group is None else group.id


def group_name(connection: Connection, workspace_id: int, group: int) -> str | None:
    """The name of a group of this workspace, or None."""
    statement = select(groups.c.name).where(groups.c.workspace_id == workspace_id, groups.c.id == group)
    return connection.execute(statement).scalar()


def group_member_ids(connection: Connection, group: int) -> frozenset[int]:
    """The ids of a group's members."""
    return frozenset(_group_member_ids.values(connection, group))


@prepared
def _group_member_ids(group: int) -> Select[Any]:
    return select(group_members.c.user_id).where(group_members.c.group_id == group)


def change_group_members(connection: Connection, group: int, *, added: Iterable[int], removed: Iterable[int]) -> None:
    """Add users to a group, of which none may be a member yet, and remove others; both by id."""
    new = [{"group_id": group, "user_id": user_id} for user_id in sorted(set(added))]
    if new:
        sealed.insert_rows(connection, group_members, new)
    for user_id in sorted(set(removed)):
        named = (group_members.c.group_id == group, group_members.c.user_id == user_id)
        sealed.remove(connection, group_members, *named)


def group_names(connection: Connection, group_ids: Iterable[int]) -> dict[int, str]:
    """The names of groups by id."""
    return {row.id: row.name for row in _group_names.rows(connection, set(group_ids))}


@prepared
def _group_names(ids: Iterable[int]) -> Select[Any]:
    return select(groups.c.id, groups.c.name).where(among(groups.c.id, ids))
