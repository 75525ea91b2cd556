"""Questions about workspaces, projects, users, groups, tokens and access keys; must decide nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, bindparam, func, select

from keyrack.model import Page, Project, Role, Token, User, Workspace
from keyrack.store import sealed
from keyrack.store.rows import ONE_ROW, inserted, page
from keyrack.store.tables import EPOCH, group_members, groups, projects, tokens, users, workspaces


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
    rows = connection.execute(statement)
    return tuple(Project(**sealed.unsealed(row)) for row in rows if sealed.sound(connection, projects, row))


def project_by_uid(connection: Connection, uid: str) -> Project | None:
    """The project with this uid, of whichever workspace, or None."""
    row = connection.execute(select(projects).where(projects.c.uid == uid)).one_or_none()
    if row is None or not sealed.sound(connection, projects, row):
        return None
    return Project(**sealed.unsealed(row))


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
    return tuple(user_record(connection, row) for row in connection.execute(statement))


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
    """The stored hash of a user's password, or None when the user has none or its row is not as Keyrack wrote it."""
    row = connection.execute(select(users).where(users.c.id == user_id)).one_or_none()
    return row.password_hash if row is not None and sealed.sound(connection, users, row) else None


@dataclass(frozen=True, slots=True)
class Claimed:
    """Whom a sign-in names, each None where there is none: no proof yet of anything, as no seal was looked at."""

    workspace_id: int | None
    user_id: int | None
    user_name: str | None
    password_hash: str | None


# Each answers exactly one row, of the same few columns, whether there is such a user or not: what the database and we
# do is the same then, and so is the time, which would tell who there is.
_claimed = (users.c.id, users.c.name, users.c.password_hash)
_claimed_uid = select(users.c.workspace_id, *_claimed).select_from(
    ONE_ROW.outerjoin(users, users.c.uid == bindparam("uid"))
)
_named = and_(users.c.workspace_id == workspaces.c.id, users.c.name == bindparam("name"))
_claimed_of_uid, _claimed_of_name = (
    select(workspaces.c.id, *_claimed).select_from(
        ONE_ROW.outerjoin(workspaces, column == bindparam("workspace")).outerjoin(users, _named)
    )
    for column in (workspaces.c.uid, workspaces.c.name)
)


def claimed(
    connection: Connection,
    *,
    user_uid: str | None,
    user_name: str | None,
    workspace_uid: str | None,
    workspace_name: str | None,
) -> Claimed:
    """Whom a sign-in names: a user by uid, or by name in a workspace by uid or name. Always one question."""
    if user_uid is not None:
        row = connection.execute(_claimed_uid, {"uid": user_uid}).one()
    elif workspace_uid is not None:
        row = connection.execute(_claimed_of_uid, {"workspace": workspace_uid, "name": user_name}).one()
    else:
        row = connection.execute(_claimed_of_name, {"workspace": workspace_name, "name": user_name}).one()
    return Claimed(*row)


def change_user(connection: Connection, user_id: int, values: Mapping[str, Any]) -> None:
    """Set columns of a user."""
    sealed.change(connection, users, users.c.id == user_id, values=values)


def remove_user(connection: Connection, user_id: int) -> None:
    """Delete a user with keys, tokens and grants."""
    sealed.remove(connection, users, users.c.id == user_id)


def add_group(connection: Connection, workspace_id: int, name: str, at: datetime) -> int:
    """Insert a group; answers its id."""
    return inserted(connection, groups, {"workspace_id": workspace_id, "name": name, "created_at": at})


def group_id(connection: Connection, workspace_id: int, name: str) -> int | None:
    """The id of the group with this name, or None; one that is not as Keyrack wrote it is none."""
    statement = select(groups).where(groups.c.workspace_id == workspace_id, groups.c.name == name)
    row = connection.execute(statement).one_or_none()
    return row.id if row is not None and sealed.sound(connection, groups, row) else None


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
        sealed.insert_rows(connection, group_members, new)
    for user_id in sorted(set(removed)):
        named = (group_members.c.group_id == group, group_members.c.user_id == user_id)
        sealed.remove(connection, group_members, *named)


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


_bearer = select(*sealed.columns(tokens, "token_"), *sealed.columns(users, "user_")).join(
    users, users.c.id == tokens.c.user_id
)


def bearer(connection: Connection, secret_hash: bytes) -> Bearer | None:
    """The token with this hash and its user, in force or not; None when there is none."""
    row = connection.execute(_bearer.where(tokens.c.secret_hash == secret_hash)).one_or_none()
    return None if row is None else _bearer_record(connection, row)


def _bearer_record(connection: Connection, row: Row[Any]) -> Bearer:
    return Bearer(token=_token(connection, row, "token_"), user=user_record(connection, row, "user_"))


def find_tokens(connection: Connection, user_id: int) -> tuple[Token, ...]:
    """All tokens of a user, oldest first."""
    statement = select(tokens).where(tokens.c.user_id == user_id).order_by(tokens.c.id)
    return tuple(_token(connection, row) for row in connection.execute(statement))


def api_token(connection: Connection, workspace_id: int, token_id: int) -> Bearer | None:
    """An API token of this workspace and its user, in force or not, or None."""
    statement = _bearer.where(tokens.c.id == token_id, tokens.c.workspace_id == workspace_id, tokens.c.kind == "api")
    row = connection.execute(statement).one_or_none()
    return None if row is None else _bearer_record(connection, row)


def find_api_tokens(connection: Connection, workspace_id: int, *, offset: int, limit: int) -> Page[Bearer]:
    """A page of a workspace's API tokens that are not revoked, oldest first."""
    statement = _bearer.where(
        tokens.c.workspace_id == workspace_id, tokens.c.kind == "api", tokens.c.revoked_at.is_(None)
    )
    return page(
        connection,
        statement.order_by(tokens.c.id),
        lambda row: _bearer_record(connection, row),
        offset=offset,
        limit=limit,
    )


def change_token(connection: Connection, token_id: int, values: Mapping[str, Any]) -> None:
    """Set columns of a token."""
    sealed.change(connection, tokens, tokens.c.id == token_id, values=values)


def count_tokens(connection: Connection, user_id: int, kind: str, at: datetime) -> int:
    """How many tokens of a kind a user has in force."""
    statement = select(func.count()).where(
        tokens.c.user_id == user_id, tokens.c.kind == kind, tokens.c.revoked_at.is_(None), tokens.c.expires_at > at
    )
    return int(connection.execute(statement).scalar_one())


def revoke_tokens(connection: Connection, at: datetime, *, user_id: int, kind: str | None = None) -> int:
    """Revoke a user's tokens, all or those of one kind; answers how many."""
    which = [tokens.c.user_id == user_id, tokens.c.revoked_at.is_(None)]
    if kind is not None:
        which.append(tokens.c.kind == kind)
    return len(sealed.change(connection, tokens, *which, values={"revoked_at": at}))


def revoke_token(connection: Connection, token_id: int, at: datetime) -> None:
    """Revoke one token."""
    sealed.change(connection, tokens, tokens.c.id == token_id, values={"revoked_at": at})


def remove_dead_tokens(connection: Connection, before: datetime, *, user_id: int | None = None) -> int:
    """Delete tokens, all or one user's, that ended before an instant, so that they don't pile up; answers how many."""
    which = [tokens.c.expires_at < before]
    if user_id is not None:
        which.append(tokens.c.user_id == user_id)
    return sealed.remove(connection, tokens, *which)


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
    return None if row is None else user_record(connection, row)


def user_record(connection: Connection, row: Any, prefix: str = "") -> User:
    """A user from all columns of its row, their names after prefix.

    One whose row is not as Keyrack wrote it may nothing, and counts as disabled: it can be looked at and deleted.
    """
    fields = sealed.unsealed(sealed.part(row, users, prefix))
    del fields["password_hash"]
    if not sealed.sound(connection, users, row, prefix):
        return User(**{**fields, "role": Role.MEMBER, "policies": (), "disabled_at": fields["disabled_at"] or EPOCH})
    return User(**{**fields, "role": Role(fields["role"]), "policies": tuple(fields["policies"])})


def _token(connection: Connection, row: Any, prefix: str = "") -> Token:
    """A token from its row; one that is not as Keyrack wrote it counts as revoked."""
    fields = sealed.unsealed(sealed.part(row, tokens, prefix))
    del fields["secret_hash"]
    if not sealed.sound(connection, tokens, row, prefix):
        return Token(**{**fields, "scopes": (), "details": {}, "revoked_at": fields["revoked_at"] or EPOCH})
    return Token(**{**fields, "scopes": tuple(fields["scopes"])})
