"""Questions about repositories and their members; must decide nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, or_, select

from keyrack.model import Page, Place, RepositoryRole, User
from keyrack.store.people import users as user_rows
from keyrack.store.rows import inserted, move_on, page
from keyrack.store.sealing import sealed, seals
from keyrack.store.search import contains
from keyrack.store.tables import repositories, repository_members, repository_names, users


@dataclass(frozen=True, slots=True)
class Repository:
    """A Git repository; visibility 0 private, 10 readable in the workspace, 20 readable by everybody."""

    id: int
    workspace_id: int
    project_id: int | None
    uid: str
    path: str
    visibility: int
    default_branch: str
    protect_default: bool
    created_by: int | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Member:
    """A user with a role in a repository."""

    user: User
    role: RepositoryRole
    created_at: datetime


def add(connection: Connection, values: Mapping[str, Any]) -> int:
    """Insert a repository (the columns of the table, with `id` if it is chosen); answers its id.

    If another repository had this path before, the path no longer leads to that one.
    """
    sealed.remove(connection, repository_names, sealed.row_of(values["path"]))
    if "id" in values:
        move_on(connection, repositories, int(values["id"]))
    return inserted(connection, repositories, values)


def get(connection: Connection, workspace_id: int, repository_id: int) -> Repository | None:
    """A repository of this workspace; None also if others altered its row."""
    return _one(
        connection,
        select(repositories).where(repositories.c.id == repository_id, repositories.c.workspace_id == workspace_id),
    )


def by_uid(connection: Connection, workspace_id: int, uid: str) -> Repository | None:
    """The repository of this workspace with this uid (CodeArts' repository_uuid), or None, as get()."""
    return _one(
        connection,
        select(repositories).where(repositories.c.uid == uid, repositories.c.workspace_id == workspace_id),
    )


def find(
    connection: Connection,
    workspace_id: int,
    *,
    project_id: int | None = None,
    bound_to: int | None = None,
    seen_by: int | None = None,
    search: str = "",
    offset: int,
    limit: int,
    after: Place | None = None,
) -> Page[Repository]:
    """A page of a workspace's repositories, newest first.

    project_id: only those of this project; bound_to: only those of this project or of none; seen_by: only those that
    the workspace may read or that have this user as a member; search: part of the path, in any case.
    """
    statement = select(repositories).where(repositories.c.workspace_id == workspace_id)
    if project_id is not None:
        statement = statement.where(repositories.c.project_id == project_id)
    if bound_to is not None:
        statement = statement.where(or_(repositories.c.project_id.is_(None), repositories.c.project_id == bound_to))
    if seen_by is not None:
        mine = select(repository_members.c.repository_id).where(repository_members.c.user_id == seen_by)
        statement = statement.where(or_(repositories.c.visibility >= 10, repositories.c.id.in_(mine)))
    if search:
        statement = statement.where(contains(repositories.c.path, search))
    ordered = statement.order_by(repositories.c.id.desc())
    return page(connection, ordered, lambda row: record(connection, row), offset=offset, limit=limit, after=after)


def change(connection: Connection, repository_id: int, values: Mapping[str, Any]) -> None:
    """Set columns of a repository."""
    sealed.change(connection, repositories, sealed.row_of(repository_id), values=values)


def remove(connection: Connection, repository_id: int) -> None:
    """Delete a repository with its members. Its deploy keys must be deleted before, by deploy_keys.remove."""
    sealed.remove(connection, repositories, sealed.row_of(repository_id))


def by_path(connection: Connection, path: str) -> Repository | None:
    """The repository at a path such as acme/site, of any workspace, or None."""
    row = connection.execute(select(repositories).where(repositories.c.path == path)).one_or_none()
    return None if row is None else record(connection, row)


def uids_of(connection: Connection, uids: Iterable[str]) -> frozenset[str]:
    """Those of these uids that a repository of any workspace has, also one whose row others altered."""
    statement = select(repositories.c.uid).where(repositories.c.uid.in_(tuple(uids)))
    return frozenset(connection.execute(statement).scalars())


def in_workspace(connection: Connection, workspace_id: int) -> tuple[Repository, ...]:
    """All repositories of a workspace by path."""
    statement = select(repositories).where(repositories.c.workspace_id == workspace_id)
    return tuple(record(connection, row) for row in connection.execute(statement.order_by(repositories.c.path)))


def members(connection: Connection, repository_id: int) -> dict[int, RepositoryRole]:
    """The roles of a repository's members, by user id."""
    statement = select(repository_members).where(repository_members.c.repository_id == repository_id)
    return {row.user_id: RepositoryRole(row.role) for row in _sound(connection, statement)}


def roles_of_user(connection: Connection, user_id: int) -> dict[int, RepositoryRole]:
    """The roles of a user, by repository id."""
    statement = select(repository_members).where(repository_members.c.user_id == user_id)
    return {row.repository_id: RepositoryRole(row.role) for row in _sound(connection, statement)}


def role_of(connection: Connection, repository_id: int, user_id: int) -> RepositoryRole | None:
    """A user's role in a repository, None if they are no member."""
    statement = select(repository_members).where(
        repository_members.c.repository_id == repository_id, repository_members.c.user_id == user_id
    )
    return next((RepositoryRole(row.role) for row in _sound(connection, statement)), None)


def is_member_of_any(connection: Connection, user_id: int) -> bool:
    """Whether a user is a member of some repository."""
    statement = select(repository_members).where(repository_members.c.user_id == user_id)
    return next(iter(_sound(connection, statement)), None) is not None


def find_members(
    connection: Connection,
    repository_id: int,
    *,
    search: str = "",
    writers: bool = False,
    user_id: int | None = None,
    offset: int,
    limit: int,
) -> Page[Member]:
    """A page of a repository's members, by name; search: part of the name, in any case; writers: without viewers;
    user_id: only this one.
    """
    statement = (
        select(
            *seals.columns(repository_members, "member_"),
            *users.c,
        )
        .join(users, users.c.id == repository_members.c.user_id)
        .where(repository_members.c.repository_id == repository_id)
    )
    if search:
        statement = statement.where(contains(users.c.name, search))
    if writers:
        statement = statement.where(repository_members.c.role != RepositoryRole.VIEWER.value)
    if user_id is not None:
        statement = statement.where(users.c.id == user_id)
    ordered = statement.order_by(users.c.name)
    return page(connection, ordered, lambda row: _member(connection, row), offset=offset, limit=limit)


def set_member(connection: Connection, repository_id: int, user_id: int, role: RepositoryRole, at: datetime) -> None:
    """Give a user a role in a repository, instead of any other."""
    place = (
        repository_members.c.repository_id == repository_id,
        repository_members.c.user_id == user_id,
    )
    if not sealed.change(connection, repository_members, *place, values={"role": role.value}):
        values = {"repository_id": repository_id, "user_id": user_id, "role": role.value, "created_at": at}
        sealed.insert_row(connection, repository_members, values)


def remove_member(connection: Connection, repository_id: int, user_id: int) -> None:
    """Take a user's role in a repository away."""
    sealed.remove(
        connection,
        repository_members,
        repository_members.c.repository_id == repository_id,
        repository_members.c.user_id == user_id,
    )


def _one(connection: Connection, statement: Select[Any]) -> Repository | None:
    row: Row[Any] | None = connection.execute(statement).one_or_none()
    return None if row is None or not sealed.sound(connection, repositories, row) else record(connection, row)


def record(connection: Connection, row: Row[Any]) -> Repository:
    """A repository from all columns of its row. If others altered the row it gets no workspace, is private and
    protected, so that nobody reaches it.
    """
    fields = seals.unsealed(row)
    if not sealed.sound(connection, repositories, row):
        fields |= {"workspace_id": 0, "visibility": 0, "protect_default": True}
    return Repository(**fields)


def _sound(connection: Connection, statement: Select[Any]) -> list[Row[Any]]:
    """The members among the rows that are as Keyrack wrote them."""
    return [row for row in connection.execute(statement) if sealed.sound(connection, repository_members, row)]


def _member(connection: Connection, row: Row[Any]) -> Member:
    holds = sealed.sound(connection, repository_members, row, "member_")
    role = RepositoryRole(row.member_role) if holds else RepositoryRole.VIEWER
    return Member(user_rows.user_record(connection, row), role, row.member_created_at)
