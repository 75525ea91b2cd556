"""Questions about users; must decide nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, and_, select

from keyrack.model import PERSON, SERVICE, Page, Role, User, Window
from keyrack.ssh.names import spellings
from keyrack.store.engine.prepared import Row, among, prepared
from keyrack.store.rows import ONE_ROW, first, inserted, paged_in_tree
from keyrack.store.sealing import sealed, seals
from keyrack.store.search import contains
from keyrack.store.tables import users, workspaces
from keyrack.store.tables.columns import EPOCH


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
    """The user with this id, of any workspace, or None."""
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


@paged_in_tree
def _named_users(workspace_id: int, sought: str | None) -> Select[Any]:
    statement = select(users).where(users.c.workspace_id == workspace_id).order_by(users.c.id)
    return statement if sought is None else statement.where(contains(users.c.name, sought))


def page_of_users(connection: Connection, workspace_id: int, window: Window, *, search: str) -> Page[Row]:
    """A page of the rows of a workspace's users, oldest first; search: part of the name."""
    return _named_users.page(connection, lambda row: row, window, workspace_id, search or None)


def other_owners(connection: Connection, user: User) -> tuple[int, ...]:
    """The ids of the workspace's other owners who are not disabled."""
    return tuple(row.id for row in _other_owners.rows(connection, user.workspace_id, user.id))


@prepared
def _other_owners(workspace_id: int, but: int) -> Select[Any]:
    return select(users.c.id).where(
        users.c.workspace_id == workspace_id,
        users.c.role == Role.OWNER.value,
        users.c.disabled_at.is_(None),
        users.c.id != but,
    )


def password_hash(connection: Connection, user_id: int) -> str | None:
    """The stored hash of a user's password; None if there is none or others altered the user's row."""
    row = _user_by_id.row(connection, user_id)
    return row.password_hash if row is not None and sealed.sound(connection, users, row) else None


@dataclass(frozen=True, slots=True)
class ClaimedIdentity:
    """Whom a sign-in names, each field None where there is none. Proves nothing: no seal was checked."""

    workspace_id: int | None
    user_id: int | None
    user_name: str | None
    password_hash: str | None


# Each question answers exactly one row of these columns, whether there is such a user or not: the same work takes the
# same time, which else would tell which users there are.
_claimed_columns = (
    users.c.id.label("user_id"),
    users.c.name.label("user_name"),
    users.c.password_hash,
)


@prepared
def _claimed_by_uid(uid: str) -> Select[Any]:
    return select(users.c.workspace_id, *_claimed_columns).select_from(ONE_ROW.outerjoin(users, users.c.uid == uid))


@prepared
def _claimed_by_name(by_uid: bool, workspace: str, name: str) -> Select[Any]:
    column = workspaces.c.uid if by_uid else workspaces.c.name
    named = and_(users.c.workspace_id == workspaces.c.id, users.c.name == name)
    joined = ONE_ROW.outerjoin(workspaces, column == workspace).outerjoin(users, named)
    return select(workspaces.c.id.label("workspace_id"), *_claimed_columns).select_from(joined)


def claimed_identity(
    connection: Connection,
    *,
    user_uid: str | None,
    user_name: str | None,
    workspace_uid: str | None,
    workspace_name: str | None,
) -> ClaimedIdentity:
    """Whom a sign-in names: a user by uid, or else by name in a workspace, which is named by uid or else by name.

    Asks as many questions whether there is such a user or not.
    """
    if user_uid is not None:
        row = _claimed_by_uid.row(connection, user_uid)
    else:
        by_uid = workspace_uid is not None
        workspace = (workspace_uid if by_uid else workspace_name) or ""
        rows = [_claimed_by_name.row(connection, by_uid, workspace, one) for one in spellings(user_name or "")]
        row = next((one for one in rows if one is not None and one.user_id is not None), rows[0])
    assert row is not None
    return ClaimedIdentity(**row)


def change_user(connection: Connection, user_id: int, values: Mapping[str, Any]) -> None:
    """Set columns of a user."""
    sealed.change(connection, users, sealed.row_of(user_id), values=values)


def remove_user(connection: Connection, user_id: int) -> None:
    """Delete a user with keys, tokens and grants."""
    sealed.remove(connection, users, sealed.row_of(user_id))


def user_names(connection: Connection, user_ids: Iterable[int]) -> dict[int, str]:
    """The names of users by id."""
    return {row.id: row.name for row in _user_names.rows(connection, set(user_ids))}


@prepared
def _user_names(ids: Iterable[int]) -> Select[Any]:
    return select(users.c.id, users.c.name).where(among(users.c.id, ids))


def _user_or_none(connection: Connection, row: Row | None) -> User | None:
    return None if row is None else user_record(connection, row)


def user_record(connection: Connection, row: Any, prefix: str = "") -> User:
    """A user from all columns of its row; prefix: what their names begin with.

    If others altered the row, the user is disabled and has no rights: it can only be looked at and deleted.
    """
    fields = seals.unsealed(seals.part(row, users, prefix))
    del fields["password_hash"]
    fields["kind"] = fields["kind"] or PERSON
    if not sealed.sound(connection, users, row, prefix):
        fields["kind"] = SERVICE if fields["kind"] == SERVICE else PERSON
        return User(**{**fields, "role": Role.MEMBER, "policies": (), "disabled_at": fields["disabled_at"] or EPOCH})
    return User(**{**fields, "role": Role(fields["role"]), "policies": tuple(fields["policies"])})
