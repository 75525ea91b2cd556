"""Reads an actor's role and proofs again within the transaction of a change; must decide nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, select, true

from keyrack.model import Actor, RepositoryRole, Role
from keyrack.store.engine.prepared import Row, prepared
from keyrack.store.keys.terms import in_force, token_in_force
from keyrack.store.people.users import user_record
from keyrack.store.sealing import sealed, seals
from keyrack.store.tables import access_keys, repositories, repository_members, tokens, users, web_sessions

_COLUMNS = {
    "asking_workspace": users.c.workspace_id,
    "asking_role": users.c.role,
    "asking_policies": users.c.policies,
    "asking_disabled_at": users.c.disabled_at,
}


@dataclass(frozen=True, slots=True)
class Standing:
    """What the rows now say of a user who is an actor.

    workspace_id, role, policies, disabled_at: of the user, role None if the user is gone; proven: whether the token,
    access key and browser session by which the actor was authenticated are in force; membership, visibility: the
    user's role in the repository that the call is about, and that one's visibility; None where there is none, or others
    altered the row.
    """

    workspace_id: int | None
    role: Role | None
    policies: tuple[str, ...]
    disabled_at: datetime | None
    proven: bool
    membership: RepositoryRole | None = None
    visibility: int | None = None


def of(connection: Connection, actor: Actor, at: datetime) -> Standing:
    """The standing of an actor who is a user, by one question."""
    row = _standing.row(connection, actor.user_id or 0, at, *proofs(actor), actor.repository_id)
    if row is None:
        return Standing(None, None, (), None, False)
    user, role, visibility = user_record(connection, row, "user_"), None, None
    if actor.repository_id is not None:
        if row["member_user_id"] is not None and sealed.sound(connection, repository_members, row, "member_"):
            role = RepositoryRole(row["member_role"])
        if row["repository_id"] is not None and sealed.sound(connection, repositories, row, "repository_"):
            visibility = row["repository_visibility"]
    return Standing(
        user.workspace_id, user.role, user.policies, user.disabled_at, bool(row["proven"]), role, visibility
    )


def proofs(actor: Actor) -> tuple[int | None, str | None, int | None]:
    """By what an actor was authenticated, as questions take it: ids of token, access key and browser session."""
    return actor.token_id, actor.access_key or None, actor.web_session_id


def standing_columns(
    user_id: int, at: datetime, token_id: int | None, access_key: str | None, web_session_id: int | None
) -> Iterator[ColumnElement[Any]]:
    """Columns for pop_standing, for a question that joins the actor's row of `users`; they save a second question."""
    yield from (column.label(name) for name, column in _COLUMNS.items())
    yield _proven(user_id, at, token_id, access_key, web_session_id).label("asking_proven")


def pop_standing(row: Row) -> Standing:
    """Take the columns of standing_columns() out of a row; answers the standing that they make."""
    workspace_id, role, policies, disabled_at = [row.pop(name) for name in _COLUMNS]
    proven = bool(row.pop("asking_proven"))
    return Standing(workspace_id, None if role is None else Role(role), tuple(policies or ()), disabled_at, proven)


@prepared
def _standing(
    user_id: int,
    at: datetime,
    token_id: int | None,
    access_key: str | None,
    web_session_id: int | None,
    repository_id: int | None,
) -> Select[Any]:
    proven = _proven(user_id, at, token_id, access_key, web_session_id).label("proven")
    asked = select(*seals.columns(users, "user_"), proven).where(users.c.id == user_id)
    if repository_id is None:
        return asked
    mine = and_(repository_members.c.repository_id == repository_id, repository_members.c.user_id == users.c.id)
    joined = users.outerjoin(repositories, repositories.c.id == repository_id).outerjoin(repository_members, mine)
    return asked.select_from(joined).add_columns(
        *seals.columns(repositories, "repository_"), *seals.columns(repository_members, "member_")
    )


def _proven(
    user_id: int, at: datetime, token_id: int | None, access_key: str | None, web_session_id: int | None
) -> ColumnElement[bool]:
    """Whether a token, an access key and a browser session, as far as given, are in force and belong to the user."""
    held: list[ColumnElement[bool]] = []
    if token_id is not None:
        of_user = (tokens.c.id == token_id, tokens.c.user_id == user_id)
        held.append(exists().where(*of_user, token_in_force(at)))
    if access_key is not None:
        key = (access_keys.c.id == access_key, access_keys.c.user_id == user_id)
        held.append(exists().where(*key, access_keys.c.active, in_force(access_keys.c.expires_at, at)))
    if web_session_id is not None:
        session = (web_sessions.c.id == web_session_id, web_sessions.c.user_id == user_id)
        held.append(exists().where(*session, in_force(web_sessions.c.expires_at, at)))
    return and_(true(), *held)
