"""Questions about groups by name, and who is in them; must decide nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, select

from keyrack.model import Page, Window
from keyrack.ssh.names import spellings
from keyrack.store.engine.prepared import Row, prepared
from keyrack.store.rows import first, matches, paged, pattern
from keyrack.store.sealing import sealed
from keyrack.store.tables import group_members, groups, users


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A group without those in it."""

    id: int
    name: str
    created_at: datetime


@paged
def _groups(workspace_id: int, sought: str | None) -> Select[Any]:
    found = select(groups).where(groups.c.workspace_id == workspace_id).order_by(groups.c.name)
    return found if sought is None else found.where(matches(groups.c.name, sought))


def page(connection: Connection, workspace_id: int, window: Window, *, search: str) -> Page[GroupRow]:
    """A page of a workspace's groups, by name; search: part of it."""
    return _groups.page(connection, _record, window, workspace_id, pattern(search))


@prepared
def _by_name(workspace_id: int, name: str) -> Select[Any]:
    return select(groups).where(groups.c.workspace_id == workspace_id, groups.c.name == name)


def by_name(connection: Connection, workspace_id: int, name: str) -> GroupRow | None:
    """The group with this name, or None; one that is not as Keyrack wrote it is none."""
    row = first(_by_name.row(connection, workspace_id, one) for one in spellings(name))
    return _record(row) if row is not None and sealed.sound(connection, groups, row) else None


@prepared
def _member_names(group_id: int) -> Select[Any]:
    named = select(users.c.name).join(group_members, group_members.c.user_id == users.c.id)
    return named.where(group_members.c.group_id == group_id).order_by(users.c.name)


def member_names(connection: Connection, group_id: int) -> tuple[str, ...]:
    """The names of a group's users, in order."""
    return tuple(_member_names.values(connection, group_id))


def remove(connection: Connection, group_id: int) -> None:
    """Delete a group with its grants."""
    sealed.remove(connection, groups, sealed.row_of(group_id))


def _record(row: Row) -> GroupRow:
    return GroupRow(row.id, row.name, row.created_at)


@paged
def _people(workspace_id: int, sought: str | None) -> Select[Any]:
    found = select(users).where(users.c.workspace_id == workspace_id).order_by(users.c.id)
    return found if sought is None else found.where(matches(users.c.name, sought))


def page_of_people(connection: Connection, workspace_id: int, window: Window, *, search: str) -> Page[Row]:
    """A page of the rows of a workspace's users, oldest first; search: part of the name."""
    return _people.page(connection, lambda row: row, window, workspace_id, pattern(search))
