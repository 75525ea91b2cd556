"""Questions about workspaces and their projects; must decide nothing."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, select

from keyrack.model import Project, Workspace
from keyrack.ssh.names import spellings
from keyrack.store.engine.prepared import Row, prepared
from keyrack.store.rows import first, inserted
from keyrack.store.sealing import sealed, seals
from keyrack.store.tables import projects, workspaces


def add_workspace(connection: Connection, *, uid: str, name: str, at: datetime) -> int:
    """Insert a workspace; answers its id."""
    return inserted(connection, workspaces, {"uid": uid, "name": name, "created_at": at})


def workspace(connection: Connection, workspace_id: int) -> Workspace:
    """The workspace with this id; it must exist."""
    record = _workspace(_workspace_by_id.row(connection, workspace_id))
    assert record is not None
    return record


@prepared
def _workspace_by_id(workspace_id: int) -> Select[Any]:
    return select(workspaces).where(workspaces.c.id == workspace_id)


def workspace_by_name(connection: Connection, name: str) -> Workspace | None:
    """The workspace with this name (Huawei's account name), or None."""
    return first(_workspace(_workspace_by_name.row(connection, one)) for one in spellings(name))


@prepared
def _workspace_by_name(name: str) -> Select[Any]:
    return select(workspaces).where(workspaces.c.name == name)


def workspaces_by_name(connection: Connection) -> tuple[Workspace, ...]:
    """All workspaces, by name."""
    return tuple(
        Workspace(**row._mapping) for row in connection.execute(select(workspaces).order_by(workspaces.c.name))
    )


def first_workspace_id(connection: Connection) -> int:
    """The id of the oldest workspace, whose people hear of what concerns no workspace; 0 if there is none."""
    return min(workspace_names(connection), default=0)


def add_project(connection: Connection, workspace_id: int, *, uid: str, name: str) -> int:
    """Insert a project; answers its id."""
    return inserted(connection, projects, {"workspace_id": workspace_id, "uid": uid, "name": name})


def find_projects(connection: Connection, workspace_id: int, name: str | None = None) -> tuple[Project, ...]:
    """The projects of a workspace, oldest first; name: only the one with this name."""
    rows = _projects.rows(connection, workspace_id, name)
    return tuple(Project(**seals.unsealed(row)) for row in rows if sealed.sound(connection, projects, row))


@prepared
def _projects(workspace_id: int, name: str | None) -> Select[Any]:
    statement = select(projects).where(projects.c.workspace_id == workspace_id).order_by(projects.c.id)
    return statement if name is None else statement.where(projects.c.name == name)


def project_by_uid(connection: Connection, uid: str) -> Project | None:
    """The project with this uid, of any workspace, or None."""
    row = _project_by_uid.row(connection, uid)
    if row is None or not sealed.sound(connection, projects, row):
        return None
    return Project(**seals.unsealed(row))


@prepared
def _project_by_uid(uid: str) -> Select[Any]:
    return select(projects).where(projects.c.uid == uid)


@prepared
def _workspace_names() -> Select[Any]:
    return select(workspaces.c.id, workspaces.c.name).order_by(workspaces.c.id)


def workspace_names(connection: Connection) -> dict[int, str]:
    """The names of all workspaces by id, the oldest first."""
    return {row.id: row.name for row in _workspace_names.rows(connection)}


def _workspace(row: Row | None) -> Workspace | None:
    return None if row is None else Workspace(**row)
