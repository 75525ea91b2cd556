"""Questions for each connection of Git over SSH, all answered by indexes; must decide nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, func, or_, select

from keyrack.model import RepositoryRole, User
from keyrack.store.git.repositories import Repository, record
from keyrack.store.hosts import host_reports
from keyrack.store.keys.terms import is_frozen
from keyrack.store.keys.uses import GIT
from keyrack.store.people import users as user_rows
from keyrack.store.sealing import sealed, seals
from keyrack.store.tables import (
    deploy_keys,
    held_back,
    key_owners,
    repositories,
    repository_members,
    repository_names,
    servers,
    user_keys,
    users,
)

# A deploy key may belong to many repositories; one sound row among so many proves that the key is known.
ROWS_OF_A_DEPLOY_KEY = 20


@dataclass(frozen=True, slots=True)
class HeldKey:
    """A user's key whose row is as Keyrack wrote it, and its user."""

    key_id: int
    title: str
    public_key: str
    user: User
    expires_at: datetime | None = None
    frozen: bool = False


@dataclass(frozen=True, slots=True)
class SoundDeployKey:
    """A deploy key of one repository, whose row is as Keyrack wrote it."""

    key_id: int
    title: str
    public_key: str
    repository_id: int
    can_push: bool


def _refused_since(fingerprint: Any, workspace_id: Any) -> Any:
    """When it was last noted, after the database was rolled back, that a host of a workspace refuses this key."""
    return (
        select(func.max(held_back.c.since))
        .join(servers, servers.c.id == held_back.c.server_id)
        .where(
            held_back.c.fingerprint == fingerprint,
            held_back.c.kind == "revoked",
            servers.c.workspace_id == workspace_id,
        )
        .scalar_subquery()
    )


# Every join is by a primary key: as fast with a million keys as with ten.
_holders = (
    select(
        key_owners.c.fingerprint,
        key_owners.c.kind,
        *seals.columns(user_keys, "key_"),
        _refused_since(key_owners.c.fingerprint, users.c.workspace_id).label("refused_at"),
        *seals.columns(users, "user_"),
    )
    .select_from(key_owners)
    .outerjoin(user_keys, user_keys.c.id == key_owners.c.user_key_id)
    .outerjoin(users, users.c.id == user_keys.c.user_id)
    .where(key_owners.c.fingerprint.in_(bindparam("fingerprints", expanding=True)))
)
_deploy_key_refused_since = _refused_since(deploy_keys.c.fingerprint, repositories.c.workspace_id)
_deploy_keys = (
    select(deploy_keys)
    .join(repositories, repositories.c.id == deploy_keys.c.repository_id)
    .where(
        deploy_keys.c.fingerprint.in_(bindparam("fingerprints", expanding=True)),
        or_(_deploy_key_refused_since.is_(None), deploy_keys.c.created_at > _deploy_key_refused_since),
    )
)


def holders(connection: Connection, fingerprints: Iterable[str]) -> dict[str, HeldKey | None]:
    """By fingerprint the user's key that it is, or None if it is a deploy key.

    Unregistered fingerprints are left out, and those that a host refused before the database was rolled back.
    """
    held_by: dict[str, HeldKey | None] = {}
    for row in connection.execute(_holders, {"fingerprints": list(fingerprints)}):
        values = row._mapping
        if values["kind"] == "deploy":
            held_by[values["fingerprint"]] = None
        elif (
            values["user_id"] is None
            or values["key_public_key"] is None
            or (values["refused_at"] is not None and values["key_created_at"] <= values["refused_at"])
        ):
            continue
        elif sealed.sound(connection, user_keys, row, "key_"):
            held_by[values["fingerprint"]] = HeldKey(
                values["key_id"],
                values["key_title"] or "",
                values["key_public_key"],
                user_rows.user_record(connection, row, "user_"),
                values["key_expires_at"],
                is_frozen(values["key_frozen_at"], values["key_confirmed_at"], values["key_created_at"]),
            )
    return held_by


def deploy_keys_with(connection: Connection, fingerprint: str) -> tuple[SoundDeployKey, ...]:
    """Deploy keys with this fingerprint, of any repositories, at most ROWS_OF_A_DEPLOY_KEY."""
    statement = _deploy_keys.order_by(deploy_keys.c.id).limit(ROWS_OF_A_DEPLOY_KEY)
    rows = connection.execute(statement, {"fingerprints": [fingerprint]})
    return tuple(_deploy_key(row._mapping) for row in rows if sealed.sound(connection, deploy_keys, row))


def deploy_keys_of(
    connection: Connection, fingerprints: Iterable[str], repository_ids: Iterable[int]
) -> dict[tuple[str, int], SoundDeployKey]:
    """The deploy keys with these fingerprints in these repositories, by fingerprint and repository id."""
    statement = _deploy_keys.where(deploy_keys.c.repository_id.in_(list(repository_ids)))
    return {
        (row.fingerprint, row.repository_id): _deploy_key(row._mapping)
        for row in connection.execute(statement, {"fingerprints": list(fingerprints)})
        if sealed.sound(connection, deploy_keys, row)
    }


def repository_at(connection: Connection, path: str) -> Repository | None:
    """The repository that has this path now or had it before, of any workspace; None also if others altered its row."""
    row = connection.execute(select(repositories).where(repositories.c.path == path)).one_or_none()
    if row is None:
        former = connection.execute(select(repository_names).where(repository_names.c.path == path)).one_or_none()
        if former is None or not sealed.sound(connection, repository_names, former):
            return None
        row = connection.execute(select(repositories).where(repositories.c.id == former.repository_id)).one_or_none()
    return None if row is None or not sealed.sound(connection, repositories, row) else record(connection, row)


def repositories_by_id(connection: Connection, repository_ids: Iterable[int]) -> dict[int, Repository]:
    """Those repositories with these ids whose rows are as Keyrack wrote them."""
    statement = select(repositories).where(repositories.c.id.in_(list(repository_ids)))
    return {
        row.id: record(connection, row)
        for row in connection.execute(statement)
        if sealed.sound(connection, repositories, row)
    }


def roles(
    connection: Connection, user_ids: Iterable[int], repository_ids: Iterable[int]
) -> dict[tuple[int, int], RepositoryRole]:
    """The roles of these users in these repositories, by user id and repository id."""
    statement = select(repository_members).where(
        repository_members.c.user_id.in_(list(user_ids)),
        repository_members.c.repository_id.in_(list(repository_ids)),
    )
    return {
        (row.user_id, row.repository_id): RepositoryRole(row.role)
        for row in connection.execute(statement)
        if sealed.sound(connection, repository_members, row)
    }


def note_key_use(connection: Connection, fingerprint: str, address: str, at: datetime) -> None:
    """Note when a key was last used with Git; an older time never replaces a newer one."""
    host_reports.note_uses(connection, GIT, [(fingerprint, at, address)])


def note_deploy_key_use(connection: Connection, deploy_key_id: int, at: datetime) -> None:
    """Note when a deploy key was last used."""
    sealed.change(connection, deploy_keys, sealed.row_of(deploy_key_id), values={"last_used_at": at})


def _deploy_key(values: Any) -> SoundDeployKey:
    return SoundDeployKey(
        key_id=values["id"],
        title=values["title"],
        public_key=values["public_key"],
        repository_id=values["repository_id"],
        can_push=values["can_push"],
    )
