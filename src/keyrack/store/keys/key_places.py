"""Questions about where one key stands in a workspace, in pages by id; must decide nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, select

from keyrack.model import Credential, UnmanagedKey
from keyrack.store.engine.prepared import prepared
from keyrack.store.keys.credentials import credential_of, credential_question
from keyrack.store.keys.terms import in_force
from keyrack.store.tables import credentials, deploy_keys, repositories, servers, unmanaged_keys


@dataclass(frozen=True, slots=True)
class PlaceOfDeployKey:
    """A deploy key with its repository; project_id: of the repository, None where it belongs to none."""

    id: int
    title: str
    repository: str
    project_id: int | None
    can_push: bool
    created_at: datetime
    last_used_at: datetime | None


def credentials_after(
    connection: Connection, workspace_id: int, fingerprint: str, at: datetime, *, after: int, limit: int
) -> list[Credential]:
    """Credentials in force with a key, with ids above `after`, at most `limit`."""
    return [credential_of(row) for row in _credentials.rows(connection, workspace_id, fingerprint, at, after, limit)]


@prepared
def _credentials(workspace_id: int, fingerprint: str, at: datetime, after: int, limit: int) -> Select[Any]:
    its = credentials.c
    which = (its.fingerprint == fingerprint, servers.c.workspace_id == workspace_id, in_force(its.expires_at, at))
    return credential_question().where(*which, its.id > after).order_by(its.id).limit(limit)


def unmanaged_keys_after(
    connection: Connection, workspace_id: int, fingerprint: str, *, after: int, limit: int
) -> list[UnmanagedKey]:
    """A key in hosts' files from which sshd takes it, without owner and credential_id; paged as credentials_after."""
    rows = _unmanaged_keys.rows(connection, workspace_id, fingerprint, after, limit)
    return [UnmanagedKey(**row) for row in rows]


@prepared
def _unmanaged_keys(workspace_id: int, fingerprint: str, after: int, limit: int) -> Select[Any]:
    its = unmanaged_keys.c
    which = (its.fingerprint == fingerprint, servers.c.workspace_id == workspace_id, its.in_force, its.state != "gone")
    question = select(unmanaged_keys).join(servers, servers.c.id == its.server_id)
    return question.where(*which, its.id > after).order_by(its.id).limit(limit)


def deploy_keys_after(
    connection: Connection, workspace_id: int, fingerprint: str, *, after: int, limit: int
) -> list[PlaceOfDeployKey]:
    """The deploy keys of repositories that are this key; paged as credentials_after."""
    rows = _deploy_keys.rows(connection, workspace_id, fingerprint, after, limit)
    return [PlaceOfDeployKey(**row) for row in rows]


@prepared
def _deploy_keys(workspace_id: int, fingerprint: str, after: int, limit: int) -> Select[Any]:
    its = deploy_keys.c
    columns = (its.id, its.title, its.can_push, its.created_at, its.last_used_at)
    return (
        select(*columns, repositories.c.path.label("repository"), repositories.c.project_id)
        .join(repositories, repositories.c.id == its.repository_id)
        .where(its.fingerprint == fingerprint, repositories.c.workspace_id == workspace_id, its.id > after)
        .order_by(its.id)
        .limit(limit)
    )
