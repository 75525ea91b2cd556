"""Questions about workspaces, projects, users, groups, tokens and access keys; must decide nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, and_, func, select

from keyrack.model import Page, Project, Role, Token, User, Window, Workspace
from keyrack.ssh.names import spellings
from keyrack.store.engine.prepared import Row, among, prepared
from keyrack.store.rows import COUNTED, ONE_ROW, Records, first, inserted, paged
from keyrack.store.sealing import access_tree, sealed
from keyrack.store.tables import group_members, groups, projects, tokens, users, workspaces
from keyrack.store.tables.columns import EPOCH
from keyrack.store.unchanged import kept


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
    found = _workspace(_workspace_by_id.row(connection, workspace_id))
    assert found is not None
    return found


@prepared
def _workspace_by_id(workspace_id: int) -> Select[Any]:
    return select(workspaces).where(workspaces.c.id == workspace_id)


def workspace_by_name(connection: Connection, name: str) -> Workspace | None:
    """The workspace with this name (Huawei's account name), or None."""
    return first(_workspace(_workspace_by_name.row(connection, one)) for one in spellings(name))


@prepared
def _workspace_by_name(name: str) -> Select[Any]:
    return select(workspaces).where(workspaces.c.name == name)


def workspace_by_uid(connection: Connection, uid: str) -> Workspace | None:
    """The workspace with this uid (Huawei's domain id), or None."""
    return _workspace(_workspace_by_uid.row(connection, uid))


@prepared
def _workspace_by_uid(uid: str) -> Select[Any]:
    return select(workspaces).where(workspaces.c.uid == uid)


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
    rows = _projects.rows(connection, workspace_id, name)
    return tuple(Project(**sealed.unsealed(row)) for row in rows if sealed.sound(connection, projects, row))


@prepared
def _projects(workspace_id: int, name: str | None) -> Select[Any]:
    found = select(projects).where(projects.c.workspace_id == workspace_id).order_by(projects.c.id)
    return found if name is None else found.where(projects.c.name == name)


def project_by_uid(connection: Connection, uid: str) -> Project | None:
    """The project with this uid, of whichever workspace, or None."""
    row = _project_by_uid.row(connection, uid)
    if row is None or not sealed.sound(connection, projects, row):
        return None
    return Project(**sealed.unsealed(row))


@prepared
def _project_by_uid(uid: str) -> Select[Any]:
    return select(projects).where(projects.c.uid == uid)


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
    return _user_or_none(connection, _user_by_id.row(connection, user_id))


@prepared
def _user_by_id(user_id: int) -> Select[Any]:
    return select(users).where(users.c.id == user_id)


def user_by_uid(connection: Connection, uid: str) -> User | None:
    """The user with this uid (the IAM user id), or None."""
    return _user_or_none(connection, _user_by_uid.row(connection, uid))


@prepared
def _user_by_uid(uid: str) -> Select[Any]:
    return select(users).where(users.c.uid == uid)


def user_by_name(connection: Connection, workspace_id: int, name: str) -> User | None:
    """The user of this workspace with this name, however it is spelled; or None."""
    row = first(_user_by_name.row(connection, workspace_id, one) for one in spellings(name))
    return _user_or_none(connection, row)


@prepared
def _user_by_name(workspace_id: int, name: str) -> Select[Any]:
    return select(users).where(users.c.workspace_id == workspace_id, users.c.name == name)


def find_users(connection: Connection, workspace_id: int) -> tuple[User, ...]:
    """All users of a workspace, oldest first."""
    return tuple(user_record(connection, row) for row in _users.rows(connection, workspace_id))


@prepared
def _users(workspace_id: int) -> Select[Any]:
    return select(users).where(users.c.workspace_id == workspace_id).order_by(users.c.id)


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
    row = _user_by_id.row(connection, user_id)
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
_claimed = (
    users.c.id.label("user_id"),
    users.c.name.label("user_name"),
    users.c.password_hash,
)


@prepared
def _claimed_uid(uid: str) -> Select[Any]:
    return select(users.c.workspace_id, *_claimed).select_from(ONE_ROW.outerjoin(users, users.c.uid == uid))


@prepared
def _claimed_of_workspace(by_uid: bool, workspace: str, name: str) -> Select[Any]:
    column = workspaces.c.uid if by_uid else workspaces.c.name
    named = and_(users.c.workspace_id == workspaces.c.id, users.c.name == name)
    found = ONE_ROW.outerjoin(workspaces, column == workspace).outerjoin(users, named)
    return select(workspaces.c.id.label("workspace_id"), *_claimed).select_from(found)


def claimed(
    connection: Connection,
    *,
    user_uid: str | None,
    user_name: str | None,
    workspace_uid: str | None,
    workspace_name: str | None,
) -> Claimed:
    """Whom a sign-in names: a user by uid, or by name in a workspace by uid or name. As many questions, whoever
    there is.
    """
    if user_uid is not None:
        row = _claimed_uid.row(connection, user_uid)
    else:
        by_uid = workspace_uid is not None
        workspace = (workspace_uid if by_uid else workspace_name) or ""
        rows = [_claimed_of_workspace.row(connection, by_uid, workspace, one) for one in spellings(user_name or "")]
        row = next((one for one in rows if one is not None and one.user_id is not None), rows[0])
    assert row is not None
    return Claimed(**row)


def change_user(connection: Connection, user_id: int, values: Mapping[str, Any]) -> None:
    """Set columns of a user."""
    sealed.change(connection, users, sealed.row_of(user_id), values=values)


def remove_user(connection: Connection, user_id: int) -> None:
    """Delete a user with keys, tokens and grants."""
    sealed.remove(connection, users, sealed.row_of(user_id))


def add_group(connection: Connection, workspace_id: int, name: str, at: datetime) -> int:
    """Insert a group; answers its id."""
    return inserted(connection, groups, {"workspace_id": workspace_id, "name": name, "created_at": at})


def group_id(connection: Connection, workspace_id: int, name: str) -> int | None:
    """The id of the group with this name, or None; one that is not as Keyrack wrote it is none."""
    row = first(_group_by_name.row(connection, workspace_id, one) for one in spellings(name))
    return row.id if row is not None and sealed.sound(connection, groups, row) else None


@prepared
def _group_by_name(workspace_id: int, name: str) -> Select[Any]:
    return select(groups).where(groups.c.workspace_id == workspace_id, groups.c.name == name)


def group_name(connection: Connection, workspace_id: int, group: int) -> str | None:
    """The name of a group of this workspace, or None."""
    statement = select(groups.c.name).where(groups.c.workspace_id == workspace_id, groups.c.id == group)
    return connection.execute(statement).scalar()


def group_member_ids(connection: Connection, group: int) -> frozenset[int]:
    """The ids of a group's users."""
    return frozenset(_group_member_ids.values(connection, group))


@prepared
def _group_member_ids(group: int) -> Select[Any]:
    return select(group_members.c.user_id).where(group_members.c.group_id == group)


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


_bearer = select(*sealed.columns(tokens, "token_"), *sealed.columns(users, "user_")).join_from(
    tokens, users, users.c.id == tokens.c.user_id
)


def bearer(connection: Connection, secret_hash: bytes) -> Bearer | None:
    """The token with this hash and its user, in force or not; None when there is none."""
    return kept(connection, ("bearer", secret_hash), lambda: _bearers.one(connection, _bearer_by_secret, secret_hash))


@prepared
def _bearer_by_secret(secret_hash: bytes) -> Select[Any]:
    # With what counts it beside it, as this is asked before each call.
    return _bearer.add_columns(access_tree.root_content.label(COUNTED)).where(tokens.c.secret_hash == secret_hash)


def _bearer_record(connection: Connection, row: Row) -> Bearer:
    return Bearer(token=_token(connection, row, "token_"), user=user_record(connection, row, "user_"))


def _is_in_force(bearer: Bearer) -> bool:
    return bearer.token.revoked_at is None and bearer.user.disabled_at is None


# One that is not as Keyrack wrote it counts as revoked or disabled, and is looked at, and told of, each time.
_bearers = Records(_bearer_record, named=("token_id",), keep=_is_in_force)


def find_tokens(connection: Connection, user_id: int) -> tuple[Token, ...]:
    """All tokens of a user, oldest first."""
    return tuple(_token(connection, row) for row in _tokens_of.rows(connection, user_id))


@prepared
def _tokens_of(user_id: int) -> Select[Any]:
    return select(tokens).where(tokens.c.user_id == user_id).order_by(tokens.c.id)


def api_token(connection: Connection, workspace_id: int, token_id: int) -> Bearer | None:
    """An API token of this workspace and its user, in force or not, or None."""
    row = _api_token.row(connection, workspace_id, token_id)
    return None if row is None else _bearer_record(connection, row)


@prepared
def _api_token(workspace_id: int, token_id: int) -> Select[Any]:
    return _bearer.where(tokens.c.id == token_id, tokens.c.workspace_id == workspace_id, tokens.c.kind == "api")


def find_api_tokens(connection: Connection, workspace_id: int, window: Window) -> Page[Bearer]:
    """A page of a workspace's API tokens that are not revoked, oldest first."""
    return _api_tokens.page(connection, lambda row: _bearer_record(connection, row), window, workspace_id)


@paged
def _api_tokens(workspace_id: int) -> Select[Any]:
    of_kind = (tokens.c.kind == "api", tokens.c.revoked_at.is_(None))
    return _bearer.where(tokens.c.workspace_id == workspace_id, *of_kind).order_by(tokens.c.id)


@paged
def _tokens_of_instance() -> Select[Any]:
    return _bearer.where(tokens.c.kind == "api", tokens.c.revoked_at.is_(None)).order_by(tokens.c.id)


def tokens_of_instance(connection: Connection, window: Window) -> Page[Bearer]:
    """A page of all workspaces' API tokens that are not revoked, oldest first."""
    return _tokens_of_instance.page(connection, lambda row: _bearer_record(connection, row), window)


@prepared
def _workspace_names() -> Select[Any]:
    return select(workspaces.c.id, workspaces.c.name).order_by(workspaces.c.id)


def workspace_names(connection: Connection) -> dict[int, str]:
    """The names of all workspaces by id, that which was there first first."""
    return {row.id: row.name for row in _workspace_names.rows(connection)}


def change_token(connection: Connection, token_id: int, values: Mapping[str, Any]) -> None:
    """Set columns of a token."""
    sealed.change(connection, tokens, sealed.row_of(token_id), values=values)


def count_tokens(connection: Connection, user_id: int, kind: str, at: datetime) -> int:
    """How many tokens of a kind a user has in force."""
    return int(_count_tokens.value(connection, user_id, kind, at))


@prepared
def _count_tokens(user_id: int, kind: str, at: datetime) -> Select[Any]:
    return select(func.count()).where(
        tokens.c.user_id == user_id, tokens.c.kind == kind, tokens.c.revoked_at.is_(None), tokens.c.expires_at > at
    )


def revoke_tokens(connection: Connection, at: datetime, *, user_id: int, kind: str | None = None) -> int:
    """Revoke a user's tokens, all or those of one kind; answers how many."""
    which = [tokens.c.user_id == user_id, tokens.c.revoked_at.is_(None)]
    if kind is not None:
        which.append(tokens.c.kind == kind)
    return len(sealed.change(connection, tokens, *which, values={"revoked_at": at}))


def revoke_token(connection: Connection, token_id: int, at: datetime) -> None:
    """Revoke one token."""
    sealed.change(connection, tokens, sealed.row_of(token_id), values={"revoked_at": at})


def remove_dead_tokens(connection: Connection, before: datetime, *, user_id: int | None = None) -> int:
    """Delete tokens, all or one user's, that ended before an instant, so that they don't pile up; answers how many."""
    which = [tokens.c.expires_at < before]
    if user_id is not None:
        which.append(tokens.c.user_id == user_id)
    return sealed.remove(connection, tokens, *which)


def group_names(connection: Connection, group_ids: Iterable[int]) -> dict[int, str]:
    """The names of groups by id."""
    return {row.id: row.name for row in _group_names.rows(connection, set(group_ids))}


@prepared
def _group_names(ids: Iterable[int]) -> Select[Any]:
    return select(groups.c.id, groups.c.name).where(among(groups.c.id, ids))


def user_names(connection: Connection, user_ids: Iterable[int]) -> dict[int, str]:
    """The names of users by id."""
    return {row.id: row.name for row in _user_names.rows(connection, set(user_ids))}


@prepared
def _user_names(ids: Iterable[int]) -> Select[Any]:
    return select(users.c.id, users.c.name).where(among(users.c.id, ids))


def _workspace(row: Row | None) -> Workspace | None:
    return None if row is None else Workspace(**row)


def _user_or_none(connection: Connection, row: Row | None) -> User | None:
    return None if row is None else user_record(connection, row)


def user_record(connection: Connection, row: Any, prefix: str = "") -> User:
    """A user from all columns of its row, their names after prefix.

    One whose row is not as Keyrack wrote it may nothing, and counts as disabled: it can be looked at and deleted.
    """
    fields = sealed.unsealed(sealed.part(row, users, prefix))
    del fields["password_hash"]
    fields["kind"] = fields["kind"] or "person"
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
