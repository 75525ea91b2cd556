"""Questions about repositories and their members; must decide nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, insert, select, update

from keyrack.model import RepositoryRole
from keyrack.store.rows import inserted
from keyrack.store.tables import repositories, repository_members


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


def add(connection: Connection, values: Mapping[str, Any]) -> int:
    """Insert a repository (the columns of the table); answers its id."""
    return inserted(connection, repositories, values)


def get(connection: Connection, workspace_id: int, repository_id: int) -> Repository | None:
    """A repository of this workspace, or None."""
    return _one(
        connection,
        select(repositories).where(repositories.c.id == repository_id, repositories.c.workspace_id == workspace_id),
    )


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
    return None if row is None else Repository(**row._mapping)
