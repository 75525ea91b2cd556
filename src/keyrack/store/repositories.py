"""Questions about repositories and their members; must decide nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, insert, or_, select, update

from keyrack.model import Page, RepositoryRole, User
from keyrack.store import people
from keyrack.store.rows import contains, inserted, page
from keyrack.store.tables import repositories, repository_members, users


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
    """Insert a repository (the columns of the table); answers its id."""
    return inserted(connection, repositories, values)


def get(connection: Connection, workspace_id: int, repository_id: int) -> Repository | None:
    """A repository of this workspace, or None."""
    return _one(
        connection,
        select(repositories).where(repositories.c.id == repository_id, repositories.c.workspace_id == workspace_id),
    )


def by_uid(connection: Connection, workspace_id: int, uid: str) -> Repository | None:
    """The repository of this workspace with this uid (CodeArts' repository_uuid), or None."""
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
) -> Page[Repository]:
    """A page of a workspace's repositories, newest first.

    project_id: of this project alone; bound_to: without those of other projects than this one; seen_by: only what is
    open to the workspace or has this user as a member; search: part of the path.
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
    return page(connection, statement.order_by(repositories.c.id.desc()), _record, offset=offset, limit=limit)


def change(connection: Connection, repository_id: int, values: Mapping[str, Any]) -> None:
    """Set columns of a repository."""
    connection.execute(update(repositories).where(repositories.c.id == repository_id).values(**values))


def remove(connection: Connection, repository_id: int) -> None:
    """Delete a repository with its members; its deploy keys must be gone already, as they hold claims."""
    connection.execute(delete(repositories).where(repositories.c.id == repository_id))


def by_path(connection: Connection, path: str) -> Repository | None:
    """The repository at a path such as acme/site, of whichever workspace, or None."""
    return _one(connection, select(repositories).where(repositories.c.path == path))


def in_workspace(connection: Connection, workspace_id: int) -> tuple[Repository, ...]:
    """All repositories of a workspace by path."""
    statement = select(repositories).where(repositories.c.workspace_id == workspace_id)
    return tuple(Repository(**row._mapping) for row in connection.execute(statement.order_by(repositories.c.path)))


def members(connection: Connection, repository_id: int) -> dict[int, RepositoryRole]:
    """The members of a repository: user id to role."""
    statement = select(repository_members).where(repository_members.c.repository_id == repository_id)
    return {row.user_id: RepositoryRole(row.role) for row in connection.execute(statement)}


def roles_of_user(connection: Connection, user_id: int) -> dict[int, RepositoryRole]:
    """What a user is a member of: repository id to role."""
    statement = select(repository_members).where(repository_members.c.user_id == user_id)
    return {row.repository_id: RepositoryRole(row.role) for row in connection.execute(statement)}


def role_of(connection: Connection, repository_id: int, user_id: int) -> RepositoryRole | None:
    """A user's role in a repository, or None for who is no member."""
    statement = select(repository_members.c.role).where(
        repository_members.c.repository_id == repository_id, repository_members.c.user_id == user_id
    )
    role = connection.execute(statement).scalar()
    return None if role is None else RepositoryRole(role)


def is_member_of_any(connection: Connection, user_id: int) -> bool:
    """Whether a user is a member of some repository."""
    statement = select(repository_members.c.id).where(repository_members.c.user_id == user_id).limit(1)
    return connection.execute(statement).first() is not None


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
    """A page of a repository's members by name; writers: without the viewers; user_id: only this one."""
    statement = (
        select(
            repository_members.c.role.label("member_role"),
            repository_members.c.created_at.label("member_since"),
            *(column for column in users.c if column.name != "password_hash"),
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
    return page(connection, statement.order_by(users.c.name), _member, offset=offset, limit=limit)


def set_member(connection: Connection, repository_id: int, user_id: int, role: RepositoryRole, at: datetime) -> None:
    """Give a user a role in a repository, in place of any before."""
    place = (
        repository_members.c.repository_id == repository_id,
        repository_members.c.user_id == user_id,
    )
    changed = connection.execute(update(repository_members).where(*place).values(role=role.value))
    if not changed.rowcount:
        connection.execute(
            insert(repository_members).values(
                repository_id=repository_id, user_id=user_id, role=role.value, created_at=at
            )
        )


def remove_member(connection: Connection, repository_id: int, user_id: int) -> None:
    """Take a user's role in a repository away."""
    connection.execute(
        delete(repository_members).where(
            repository_members.c.repository_id == repository_id,
            repository_members.c.user_id == user_id,
        )
    )


def _one(connection: Connection, statement: Select[Any]) -> Repository | None:
    row: Row[Any] | None = connection.execute(statement).one_or_none()
    return None if row is None else _record(row)


def _record(row: Row[Any]) -> Repository:
    return Repository(**row._mapping)


def _member(row: Row[Any]) -> Member:
    values = dict(row._mapping)
    role, since = RepositoryRole(values.pop("member_role")), values.pop("member_since")
    return Member(people.user_record(values), role, since)
