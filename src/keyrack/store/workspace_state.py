"""Reads all of a workspace that a workspace file can declare, by a few questions; must decide nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, select

from keyrack.model import Credential, Grant, Project, RepositoryRole, User, UserKey, Workspace
from keyrack.store.chunks import chunks
from keyrack.store.git import deploy_keys
from keyrack.store.git.deploy_keys import DeployKey
from keyrack.store.git.repositories import Repository, record
from keyrack.store.hosts import host_keys
from keyrack.store.hosts.host_keys import HostKey
from keyrack.store.keys import credentials as credential_rows
from keyrack.store.keys import grants as grant_rows
from keyrack.store.keys import key_policy, key_sources, requests, revoked_keys
from keyrack.store.keys import user_keys as user_key_rows
from keyrack.store.keys.key_policy import KeyPolicyRow
from keyrack.store.keys.key_sources import KeySource
from keyrack.store.keys.requests import RequestRule
from keyrack.store.keys.revoked_keys import RevokedKey
from keyrack.store.people import users as user_rows
from keyrack.store.people import workspaces
from keyrack.store.people.access_keys import AccessKeyRow, access_key_record
from keyrack.store.tables import (
    access_keys,
    group_members,
    groups,
    repositories,
    repository_members,
    server_tags,
    servers,
    system_users,
    tokens,
    users,
)

BATCH_SIZE = 500
"""How many values one statement lists at most."""


@dataclass(frozen=True, slots=True)
class TokenRow:
    """An API token with the hash of its secret."""

    id: int
    user_id: int
    workspace_id: int
    name: str
    secret_hash: bytes
    scopes: tuple[str, ...]
    expires_at: datetime | None
    revoked_at: datetime | None


@dataclass(slots=True)
class ServerState:
    """A server with its tags and the names of its system users."""

    id: int
    name: str
    address: str
    provider: str | None
    mode: str
    offline_after_seconds: int = 0
    offline_then: str = "keep"
    frozen_at: datetime | None = None
    tags: set[str] = field(default_factory=set)
    accounts: set[str] = field(default_factory=set)


@dataclass(slots=True)
class RepositoryState:
    """A repository and its members: user id to role."""

    repository: Repository
    members: dict[int, RepositoryRole] = field(default_factory=dict)


@dataclass(slots=True)
class State:
    """A workspace as the database has it; everything is empty if there is none of that name yet.

    passwords (hashes) and user_keys are by user id, credentials and host_keys by server id, deploy_keys by repository
    id, members by group id; users, groups and repositories by name or path. known_…: named in a file, of any workspace.
    """

    workspace: Workspace | None = None
    key_policy: KeyPolicyRow | None = None
    projects: tuple[Project, ...] = ()
    users: dict[str, User] = field(default_factory=dict)
    passwords: dict[int, str | None] = field(default_factory=dict)
    tokens: tuple[TokenRow, ...] = ()
    access_keys: tuple[AccessKeyRow, ...] = ()
    groups: dict[str, int] = field(default_factory=dict)
    members: dict[int, set[int]] = field(default_factory=dict)
    servers: dict[int, ServerState] = field(default_factory=dict)
    repositories: dict[str, RepositoryState] = field(default_factory=dict)
    grants: tuple[Grant, ...] = ()
    damaged_grants: tuple[Grant, ...] = ()
    user_keys: dict[int, tuple[UserKey, ...]] = field(default_factory=dict)
    credentials: dict[int, tuple[Credential, ...]] = field(default_factory=dict)
    sources: tuple[KeySource, ...] = ()
    rules: tuple[RequestRule, ...] = ()
    revoked_keys: tuple[RevokedKey, ...] = ()
    host_keys: dict[int, list[HostKey]] = field(default_factory=dict)
    deploy_keys: dict[int, tuple[DeployKey, ...]] = field(default_factory=dict)
    known_tokens: dict[bytes, TokenRow] = field(default_factory=dict)
    known_access_keys: dict[str, AccessKeyRow] = field(default_factory=dict)
    known_repositories: tuple[Repository, ...] = ()


def load(
    connection: Connection,
    name: str,
    *,
    token_hashes: Iterable[bytes],
    access_key_ids: Iterable[str],
    repository_paths: Iterable[str],
    repository_ids: Iterable[int],
) -> State:
    """The workspace of this name without its keys (see fill_keys), and the tokens, access keys and repositories of any
    workspace that have these hashes, ids and paths.
    """
    state = State(
        known_tokens={row.secret_hash: row for row in _tokens(connection, token_hashes)},
        known_access_keys={row.id: row for row in _access_keys(connection, access_key_ids)},
        known_repositories=(
            *_repositories(connection, repositories.c.path, repository_paths),
            *_repositories(connection, repositories.c.id, repository_ids),
        ),
        workspace=workspaces.workspace_by_name(connection, name),
    )
    if state.workspace is not None:
        _fill(connection, state, state.workspace.id)
    return state


def _fill(connection: Connection, state: State, workspace_id: int) -> None:
    state.key_policy = key_policy.of_workspace(connection, workspace_id)
    state.projects = workspaces.find_projects(connection, workspace_id)
    for row in connection.execute(select(users).where(users.c.workspace_id == workspace_id).order_by(users.c.id)):
        values = dict(row._mapping)
        state.passwords[row.id] = values["password_hash"]
        state.users[row.name] = user_rows.user_record(connection, row)
    state.tokens = tuple(
        _token(row)
        for row in connection.execute(
            _token_columns().where(
                tokens.c.workspace_id == workspace_id, tokens.c.kind == "api", tokens.c.revoked_at.is_(None)
            )
        )
    )
    state.access_keys = tuple(
        access_key_record(connection, row)
        for row in connection.execute(
            select(access_keys)
            .join(users, users.c.id == access_keys.c.user_id)
            .where(users.c.workspace_id == workspace_id, access_keys.c.security_token_hash.is_(None))
        )
    )
    for row in connection.execute(select(groups).where(groups.c.workspace_id == workspace_id).order_by(groups.c.id)):
        state.groups[row.name] = row.id
        state.members[row.id] = set()
    statement = select(group_members).join(groups, groups.c.id == group_members.c.group_id)
    for row in connection.execute(statement.where(groups.c.workspace_id == workspace_id)):
        state.members[row.group_id].add(row.user_id)
    _fill_servers(connection, state, workspace_id)
    here = repositories.c.workspace_id == workspace_id
    for row in connection.execute(select(repositories).where(here).order_by(repositories.c.id)):
        state.repositories[row.path] = RepositoryState(record(connection, row))
    by_id = {repository.repository.id: repository for repository in state.repositories.values()}
    statement = select(repository_members).join(repositories, repositories.c.id == repository_members.c.repository_id)
    for row in connection.execute(statement.where(here).order_by(repository_members.c.id)):
        by_id[row.repository_id].members[row.user_id] = RepositoryRole(row.role)
    state.grants = grant_rows.find_grants(connection, workspace_id)


def fill_keys(
    connection: Connection, state: State, at: datetime, *, users_named: Iterable[str], servers_named: Iterable[int]
) -> None:
    """Add the keys of some users and the sound credentials, in force at a time, of some servers; and of the whole
    workspace its key sources, request rules, revoked keys, deploy keys and host keys.

    users_named: names of users; servers_named: ids of servers of the workspace.
    """
    if state.workspace is None:
        return
    for name in users_named:
        if name in state.users:
            state.user_keys[state.users[name].id] = user_key_rows.keys_of_user(connection, state.users[name].id)
    for server_id in servers_named:
        checked = credential_rows.sealed_credentials(connection, server_id, at)
        state.credentials[server_id] = tuple(credential for credential, sound in checked if sound)
    state.sources = key_sources.of_workspace(connection, state.workspace.id)
    state.rules = requests.rules(connection, state.workspace.id)
    state.revoked_keys = revoked_keys.of_workspace(connection, state.workspace.id)
    state.host_keys = host_keys.of_servers(connection, state.servers)
    state.deploy_keys = {
        one.repository.id: deploy_keys.of_repository(connection, one.repository.id)
        for one in state.repositories.values()
    }


def _fill_servers(connection: Connection, state: State, workspace_id: int) -> None:
    named = ("id", "name", "address", "provider", "mode", "offline_after_seconds", "offline_then", "frozen_at")
    columns: list[Any] = [servers.c[name] for name in named]
    statement = select(*columns).where(servers.c.workspace_id == workspace_id).order_by(servers.c.id)
    for server in connection.execute(statement):
        state.servers[server.id] = ServerState(**server._mapping)
    tagged = select(server_tags).join(servers, servers.c.id == server_tags.c.server_id)
    for row in connection.execute(tagged.where(servers.c.workspace_id == workspace_id)):
        state.servers[row.server_id].tags.add(row.tag)
    accounts = select(system_users.c.server_id, system_users.c.username).join(
        servers, servers.c.id == system_users.c.server_id
    )
    for row in connection.execute(accounts.where(servers.c.workspace_id == workspace_id)):
        state.servers[row.server_id].accounts.add(row.username)


def _token_columns() -> Select[Any]:
    return select(*(tokens.c[name] for name in TokenRow.__dataclass_fields__))


def _token(row: Row[Any]) -> TokenRow:
    values = dict(row._mapping)
    return TokenRow(**{**values, "scopes": tuple(values["scopes"])})


def _tokens(connection: Connection, hashes: Iterable[bytes]) -> Iterable[TokenRow]:
    for some in chunks(hashes, BATCH_SIZE):
        for row in connection.execute(_token_columns().where(tokens.c.secret_hash.in_(some))):
            yield _token(row)


def _access_keys(connection: Connection, ids: Iterable[str]) -> Iterable[AccessKeyRow]:
    for some in chunks(ids, BATCH_SIZE):
        for row in connection.execute(select(access_keys).where(access_keys.c.id.in_(some))):
            yield access_key_record(connection, row)


def _repositories(connection: Connection, column: Any, values: Iterable[Any]) -> Iterable[Repository]:
    for some in chunks(values, BATCH_SIZE):
        for row in connection.execute(select(repositories).where(column.in_(some))):
            yield record(connection, row)
