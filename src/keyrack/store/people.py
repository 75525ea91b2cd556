"""Questions about workspaces, projects, users, groups, tokens and access keys; must decide nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, func, insert, select, update

from keyrack.model import Page, Project, Role, Token, User, Workspace
from keyrack.store.rows import inserted, page
from keyrack.store.tables import group_members, groups, projects, tokens, users, workspaces


@dataclass(frozen=True, slots=True)
class Bearer:
    """Who stands behind a token: the token, its user and the workspace's name."""

    token: Token
    user: User


def add_workspace(connection: Connection, *, uid: str, name: str, at: datetime) -> int:
    """Insert a workspace; answers its id."""
    return inserted(connection, workspaces, {"uid": uid, "name": name, "created_at": at})


def workspace(connection: Connection, workspace_id: int) -> Workspace:
    """The workspace with this id; it must exist."""
    row = connection.execute(select(workspaces).where(workspaces.c.id == workspace_id)).one()
    return Workspace(**row._mapping)


def workspace_by_name(connection: Connection, name: str) -> Workspace | None:
    """The workspace with this name (Huawei's account name), or None."""
    return _workspace(connection, select(workspaces).where(workspaces.c.name == name))


def workspace_by_uid(connection: Connection, uid: str) -> Workspace | None:
    """The workspace with this uid (Huawei's domain id), or None."""
    return _workspace(connection, select(workspaces).where(workspaces.c.uid == uid))


def workspaces_by_name(connection: Connection) -> tuple[Workspace, ...]:
    """All workspaces."""
    return tuple(
        Workspace(**row._mapping) for row in connection.execute(select(workspaces).order_by(workspaces.c.name))
    )


def workspaces_exist(connection: Connection) -> bool:
    """Whether there is any workspace, which tells a new instance from one in use."""
    return connection.execute(select(workspaces.c.id).limit(1)).scalar() is not None


def add_project(connection: Connection, workspace_id: int, *, uid: str, name: str) -> int:
    """Insert a project; answers its id."""
    return inserted(connection, projects, {"workspace_id": workspace_id, "uid": uid, "name": name})


def find_projects(connection: Connection, workspace_id: int, name: str | None = None) -> tuple[Project, ...]:
    """The projects of a workspace by name, all or the one that is named."""
    statement = select(projects).where(projects.c.workspace_id == workspace_id).order_by(projects.c.id)
    if name is not None:
        statement = statement.where(projects.c.name == name)
    return tuple(Project(**row._mapping) for row in connection.execute(statement))


def project_by_uid(connection: Connection, uid: str) -> Project | None:
    """The project with this uid, of whichever workspace, or None."""
    row = connection.execute(select(projects).where(projects.c.uid == uid)).one_or_none()
    return None if row is None else Project(**row._mapping)


def add_user(
    connection: Connection,
    workspace_id: int,
    *,
    uid: str,
    name: str,
    role: Role,
    policies: Iterable[str],
    password_hash: str | None,
    at: datetime,
) -> int:
    """Insert a user; answers its id."""
    return inserted(
        connection,
        users,
        {
            "uid": uid,
            "workspace_id": workspace_id,
            "name": name,
            "role": role.value,
            "policies": list(policies),
            "password_hash": password_hash,
            "created_at": at,
        },
    )


def user(connection: Connection, user_id: int) -> User | None:
    """The user with this id, of whichever workspace, or None."""
    return _user_or_none(connection, select(users).where(users.c.id == user_id))


def user_by_uid(connection: Connection, uid: str) -> User | None:
    """The user with this uid (the IAM user id), or None."""
    return _user_or_none(connection, select(users).where(users.c.uid == uid))


def user_by_name(connection: Connection, workspace_id: int, name: str) -> User | None:
    """The user of this workspace with this name, or None."""
    return _user_or_none(connection, select(users).where(users.c.workspace_id == workspace_id, users.c.name == name))


def find_users(connection: Connection, workspace_id: int) -> tuple[User, ...]:
    """All users of a workspace, oldest first."""
    statement = select(users).where(users.c.workspace_id == workspace_id).order_by(users.c.id)
    return tuple(user_record(dict(row._mapping)) for row in connection.execute(statement))


def another_owner(connection: Connection, user: User) -> bool:
    """Whether the workspace has an owner who is not disabled, beside this user."""
    statement = select(users.c.id).where(
        users.c.workspace_id == user.workspace_id,
        users.c.role == Role.OWNER.value,
        users.c.disabled_at.is_(None),
        users.c.id != user.id,
    )
    return connection.execute(statement.limit(1)).scalar() is not None


def password_hash(connection: Connection, user_id: int) -> str | None:
    """The stored hash of a user's password, or None when the user has none."""
    return connection.execute(select(users.c.password_hash).where(users.c.id == user_id)).scalar()


def change_user(connection: Connection, user_id: int, values: Mapping[str, Any]) -> None:
    """Set columns of a user."""
    connection.execute(update(users).where(users.c.id == user_id).values(**values))


def remove_user(connection: Connection, user_id: int) -> None:
    """Delete a user with keys, tokens and grants."""
    connection.execute(delete(users).where(users.c.id == user_id))


def add_group(connection: Connection, workspace_id: int, name: str, at: datetime) -> int:
    """Insert a group; answers its id."""
    return inserted(connection, groups, {"workspace_id": workspace_id, "name": name, "created_at": at})


def group_id(connection: Connection, workspace_id: int, name: str) -> int | None:
    """The id of the group with this name, or None."""
    statement = select(groups.c.id).where(groups.c.workspace_id == workspace_id, groups.c.name == name)
    return connection.execute(statement).scalar()


def group_name(connection: Connection, workspace_id: int, group: int) -> str | None:
    """The name of a group of this workspace, or None."""
    statement = select(groups.c.name).where(groups.c.workspace_id == workspace_id, groups.c.id == group)
    return connection.execute(statement).scalar()


def group_member_ids(connection: Connection, group: int) -> frozenset[int]:
    """The ids of a group's users."""
    return frozenset(
        connection.execute(select(group_members.c.user_id).where(group_members.c.group_id == group)).scalars()
    )


def change_group_members(connection: Connection, group: int, *, added: Iterable[int], removed: Iterable[int]) -> None:
    """Put users into a group, none of whom is in it, and take others out."""
    new = [{"group_id": group, "user_id": user_id} for user_id in sorted(set(added))]
    if new:
        connection.execute(insert(group_members), new)
    for user_id in sorted(set(removed)):
        connection.execute(
            delete(group_members).where(group_members.c.group_id == group, group_members.c.user_id == user_id)
        )


def add_token(
    connection: Connection,
    owner: User,
    *,
    kind: str,
    name: str,
    secret_hash: bytes,
    scopes: Iterable[str],
    details: Mapping[str, Any],
    at: datetime,
    expires_at: datetime | None,
) -> int:
    """Insert a token of a user; answers its id."""
    return inserted(
        connection,
        tokens,
        {
            "user_id": owner.id,
            "workspace_id": owner.workspace_id,
            "kind": kind,
            "name": name,
            "secret_hash": secret_hash,
            "scopes": list(scopes),
            "details": dict(details),
            "created_at": at,
            "expires_at": expires_at,
        },
    )


_bearer = select(
    *(column.label(f"token_{column.name}") for column in tokens.c if column.name != "secret_hash"),
    *(column.label(f"user_{column.name}") for column in users.c if column.name != "password_hash"),
).join(users, users.c.id == tokens.c.user_id)


def bearer(connection: Connection, secret_hash: bytes) -> Bearer | None:
    """The token with this hash and its user, in force or not; None when there is none."""
    row = connection.execute(_bearer.where(tokens.c.secret_hash == secret_hash)).one_or_none()
    return None if row is None else _bearer_record(row)


def _bearer_record(row: Row[Any]) -> Bearer:
    parts: dict[str, dict[str, Any]] = {"token": {}, "user": {}}
    for name, value in row._mapping.items():
        table, _, column = str(name).partition("_")
        parts[table][column] = value
    return Bearer(token=_token(parts["token"]), user=user_record(parts["user"]))


def find_tokens(connection: Connection, user_id: int) -> tuple[Token, ...]:
    """All tokens of a user, oldest first."""
    columns = [column for column in tokens.c if column.name != "secret_hash"]
    statement = select(*columns).where(tokens.c.user_id == user_id).order_by(tokens.c.id)
    return tuple(_token(dict(row._mapping)) for row in connection.execute(statement))


def api_token(connection: Connection, workspace_id: int, token_id: int) -> Bearer | None:
    """An API token of this workspace and its user, in force or not, or None."""
    statement = _bearer.where(tokens.c.id == token_id, tokens.c.workspace_id == workspace_id, tokens.c.kind == "api")
    row = connection.execute(statement).one_or_none()
    return None if row is None else _bearer_record(row)


def find_api_tokens(connection: Connection, workspace_id: int, *, offset: int, limit: int) -> Page[Bearer]:
    """A page of a workspace's API tokens that are not revoked, oldest first."""
    statement = _bearer.where(
        tokens.c.workspace_id == workspace_id, tokens.c.kind == "api", tokens.c.revoked_at.is_(None)
    )
    return page(connection, statement.order_by(tokens.c.id), _bearer_record, offset=offset, limit=limit)


def change_token(connection: Connection, token_id: int, values: Mapping[str, Any]) -> None:
    """Set columns of a token."""
    connection.execute(update(tokens).where(tokens.c.id == token_id).values(**values))


def count_tokens(connection: Connection, user_id: int, kind: str, at: datetime) -> int:
    """How many tokens of a kind a user has in force."""
    statement = select(func.count()).where(
        tokens.c.user_id == user_id, tokens.c.kind == kind, tokens.c.revoked_at.is_(None), tokens.c.expires_at > at
    )
    return int(connection.execute(statement).scalar_one())


def revoke_tokens(connection: Connection, at: datetime, *, user_id: int, kind: str | None = None) -> int:
    """Revoke a user's tokens, all or those of one kind; answers how many."""
    statement = update(tokens).where(tokens.c.user_id == user_id, tokens.c.revoked_at.is_(None))
    if kind is not None:
        statement = statement.where(tokens.c.kind == kind)
    return connection.execute(statement.values(revoked_at=at)).rowcount


def revoke_token(connection: Connection, token_id: int, at: datetime) -> None:
    """Revoke one token."""
    connection.execute(update(tokens).where(tokens.c.id == token_id).values(revoked_at=at))


def remove_dead_tokens(connection: Connection, before: datetime, *, user_id: int | None = None) -> int:
    """Delete tokens, all or one user's, that ended before an instant, so that they don't pile up; answers how many."""
    statement = delete(tokens).where(tokens.c.expires_at < before)
    if user_id is not None:
        statement = statement.where(tokens.c.user_id == user_id)
    return connection.execute(statement).rowcount


def group_names(connection: Connection, group_ids: Iterable[int]) -> dict[int, str]:
    """The names of groups by id."""
    rows = connection.execute(select(groups.c.id, groups.c.name).where(groups.c.id.in_(set(group_ids))))
    return {row.id: row.name for row in rows}


def user_names(connection: Connection, user_ids: Iterable[int]) -> dict[int, str]:
    """The names of users by id."""
    rows = connection.execute(select(users.c.id, users.c.name).where(users.c.id.in_(set(user_ids))))
    return {row.id: row.name for row in rows}


def _workspace(connection: Connection, statement: Select[Any]) -> Workspace | None:
    row = connection.execute(statement).one_or_none()
    return None if row is None else Workspace(**row._mapping)


def _user_or_none(connection: Connection, statement: Select[Any]) -> User | None:
    row: Row[Any] | None = connection.execute(statement).one_or_none()
    return None if row is None else user_record(dict(row._mapping))


def user_record(values: Mapping[str, Any]) -> User:
    """A user from the columns of its row."""
    fields = {name: value for name, value in values.items() if name != "password_hash"}
    return User(**{**fields, "role": Role(fields["role"]), "policies": tuple(fields["policies"])})


def _token(values: Mapping[str, Any]) -> Token:
    return Token(**{**values, "scopes": tuple(values["scopes"])})
