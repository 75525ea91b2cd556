"""Questions about deploy keys; must decide nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, func, select

from keyrack.model import Page
from keyrack.store.rows import inserted, page
from keyrack.store.sealing import sealed, seals
from keyrack.store.tables import deploy_keys, key_owners, repositories


@dataclass(frozen=True, slots=True)
class DeployKey:
    """A public key that opens one repository."""

    id: int
    repository_id: int
    title: str
    application: str
    public_key: str
    comment: str
    fingerprint: str
    can_push: bool
    created_by: int | None
    created_at: datetime
    last_used_at: datetime | None

    @property
    def with_comment(self) -> str:
        """The key as it was registered: type, base64 and comment."""
        return f"{self.public_key} {self.comment}" if self.comment else self.public_key


def add(connection: Connection, values: Mapping[str, Any]) -> int:
    """Insert a deploy key (the columns of the table); answers its id."""
    return inserted(connection, deploy_keys, values)


def get(connection: Connection, repository_id: int, key_id: int) -> DeployKey | None:
    """A deploy key of this repository, or None."""
    statement = select(deploy_keys).where(deploy_keys.c.id == key_id, deploy_keys.c.repository_id == repository_id)
    row = connection.execute(statement).one_or_none()
    return None if row is None else _deploy_key(row)


def by_fingerprint(connection: Connection, repository_id: int, fingerprint: str) -> DeployKey | None:
    """The deploy key of this repository with this fingerprint, or None."""
    statement = select(deploy_keys).where(
        deploy_keys.c.repository_id == repository_id, deploy_keys.c.fingerprint == fingerprint
    )
    row = connection.execute(statement).one_or_none()
    return None if row is None else _deploy_key(row)


def find(connection: Connection, repository_id: int, *, offset: int, limit: int) -> Page[DeployKey]:
    """A page of a repository's deploy keys, newest first."""
    statement = select(deploy_keys).where(deploy_keys.c.repository_id == repository_id)
    return page(connection, statement.order_by(deploy_keys.c.id.desc()), _deploy_key, offset=offset, limit=limit)


def of_repository(connection: Connection, repository_id: int) -> tuple[DeployKey, ...]:
    """All deploy keys of a repository, oldest first."""
    statement = select(deploy_keys).where(deploy_keys.c.repository_id == repository_id)
    return tuple(_deploy_key(row) for row in connection.execute(statement.order_by(deploy_keys.c.id)))


def count(connection: Connection, repository_id: int) -> int:
    """How many deploy keys a repository has."""
    statement = select(func.count()).select_from(deploy_keys).where(deploy_keys.c.repository_id == repository_id)
    return int(connection.execute(statement).scalar_one())


def hold_owner(connection: Connection, fingerprint: str) -> str | None:
    """Who has claimed a fingerprint, "user" or "deploy", or None; nobody else changes that until this write ends."""
    statement = select(key_owners.c.kind).where(key_owners.c.fingerprint == fingerprint)
    if connection.dialect.name == "postgresql":
        statement = statement.with_for_update()
    return connection.execute(statement).scalar()


def remove(connection: Connection, key: DeployKey) -> None:
    """Delete a deploy key; its claim on the fingerprint goes with the last repository that has the key."""
    hold_owner(connection, key.fingerprint)
    sealed.remove(connection, deploy_keys, sealed.row_of(key.id))
    _release_claim(connection, key.fingerprint)


def remove_from_workspace(connection: Connection, workspace_id: int, fingerprint: str) -> int:
    """Delete a key from every repository of a workspace; answers from how many.

    Its claim on the fingerprint goes with the last repository of any workspace that has the key. Another workspace may
    add the key at this moment, so the claim is locked first; else it could be deleted under that key.
    """
    hold_owner(connection, fingerprint)
    mine = select(repositories.c.id).where(repositories.c.workspace_id == workspace_id)
    which = (deploy_keys.c.fingerprint == fingerprint, deploy_keys.c.repository_id.in_(mine))
    removed = sealed.remove(connection, deploy_keys, *which)
    if removed:
        _release_claim(connection, fingerprint)
    return removed


def _release_claim(connection: Connection, fingerprint: str) -> None:
    """Delete the claim on a fingerprint where no repository has the key any more."""
    left = select(deploy_keys.c.id).where(deploy_keys.c.fingerprint == fingerprint).limit(1)
    if connection.execute(left).scalar() is None:
        connection.execute(
            delete(key_owners).where(key_owners.c.fingerprint == fingerprint, key_owners.c.kind == "deploy")
        )


def _deploy_key(row: Row[Any]) -> DeployKey:
    return DeployKey(**seals.unsealed(row))
