"""Finds what a caller names in its own workspace, by id or name, or refuses in one way; must not decide who may see it.

A thing that a path names is MISSING where it is not there. One that a field names is INVALID, of that field.
"""

from __future__ import annotations

import re
from datetime import datetime

from sqlalchemy import Connection

from keyrack.core.work import Work
from keyrack.errors import Kind, Refusal, invalid, missing
from keyrack.model import Actor, Credential, Grant, Server, SystemUser, User, UserKey
from keyrack.ssh.names import hidden_character
from keyrack.store.git import repositories
from keyrack.store.git.repositories import Repository
from keyrack.store.hosts import servers, system_users
from keyrack.store.keys import endings, grants, user_keys
from keyrack.store.people import groups, tokens, users
from keyrack.store.people.groups import GroupRow
from keyrack.store.people.tokens import Bearer

NUMBER = re.compile(r"[1-9][0-9]{0,8}")
"""A reference that may be a server's id; with a leading 0 it is a name."""


ONESELF = "me"
"""Names the caller wherever a user is named; nobody can have this name."""


def is_oneself(actor: Actor, name: str) -> bool:
    """Whether the actor is the user of this name in this very spelling: another spelling may be another user's.

    An operator acts under a login name of the machine and is no user, even where one has that name.
    """
    return actor.user_id is not None and actor.name == name


def user(connection: Connection, actor: Actor, user_id: int | None) -> User:
    """The user with this id, None for no user. Raises Refusal MISSING."""
    return _own_user(actor, None if user_id is None else users.user(connection, user_id))


def user_with_uid(connection: Connection, actor: Actor, uid: str) -> User:
    """The user with this uid (the IAM user id). Raises Refusal MISSING."""
    return _own_user(actor, users.user_by_uid(connection, uid))


def user_named(connection: Connection, actor: Actor, name: str, *, field: str | None = None) -> User:
    """The user with this name; field: that names it, None for a path. Raises Refusal MISSING, or INVALID of field."""
    user = users.user_by_name(connection, actor.workspace_id, name)
    if user is None:
        raise _absent("user", name, field)
    return user


def group_named(connection: Connection, actor: Actor, name: str, *, field: str | None = None) -> GroupRow:
    """The group with this name; as user_named."""
    group = groups.by_name(connection, actor.workspace_id, name)
    if group is None:
        raise _absent("group", name, field)
    return group


def server(connection: Connection, actor: Actor, server_id: int) -> Server:
    """The server with this id. Raises Refusal MISSING."""
    known = servers.get(connection, actor.workspace_id, server_id)
    if known is None:
        raise missing("server")
    return known


def require_server(connection: Connection, actor: Actor, server_id: int) -> None:
    """As server(), for callers that need nothing of it; cheaper. Raises Refusal MISSING."""
    if servers.own_id(connection, actor.workspace_id, server_id) is None:
        raise missing("server")


def server_named(connection: Connection, actor: Actor, reference: str, *, field: str | None = None) -> Server:
    """The server with this id or this name; digits are read as an id first.

    field: as user_named takes it. Raises Refusal MISSING, TAKEN where several servers have the name, or INVALID of
    field.
    """
    if hidden_character(reference) is not None:
        raise _absent("server", reference, field)
    own = servers.get(connection, actor.workspace_id, int(reference)) if NUMBER.fullmatch(reference) else None
    if own is not None:
        return own
    alike = servers.all_by_name(connection, actor.workspace_id, reference)
    if not alike:
        raise _absent("server", reference, field)
    if len(alike) > 1:
        ids = ", ".join(str(one.id) for one in alike)
        words = f"Several servers have this name; use the id, one of: {ids}."
        raise invalid(field, words, "server-ambiguous") if field else Refusal(Kind.TAKEN, "name-ambiguous", words)
    return alike[0]


def system_user(connection: Connection, server_id: int, system_user_id: int) -> SystemUser:
    """The account with this id on a server, as stored. Raises Refusal MISSING."""
    row = system_users.get(connection, server_id, system_user_id)
    if row is None:
        raise missing("system user")
    return row


def user_key(connection: Connection, user_id: int, key_id: int) -> UserKey:
    """The SSH key with this id of a user. Raises Refusal MISSING."""
    key = user_keys.get_user_key(connection, user_id, key_id)
    if key is None:
        raise missing("SSH key")
    return key


def credential(connection: Connection, actor: Actor, credential_id: int, now: datetime) -> tuple[Credential, Server]:
    """The credential in force with this id, and its server. Raises Refusal MISSING."""
    known = endings.credential(connection, credential_id, now)
    server = None if known is None else servers.get(connection, actor.workspace_id, known.server_id)
    if known is None or server is None:
        raise missing("SSH key")
    return known, server


def repository(connection: Connection, actor: Actor, repository_id: int) -> Repository:
    """The repository with this id; core/git/repositories.py decides who may reach it. Raises Refusal MISSING."""
    known = repositories.get(connection, actor.workspace_id, repository_id)
    if known is None:
        raise missing("repository")
    return known


def grant(connection: Connection, actor: Actor, grant_id: int) -> Grant:
    """The grant with this id. Raises Refusal MISSING."""
    known = grants.get_grant(connection, actor.workspace_id, grant_id)
    if known is None:
        raise missing("grant")
    return known


def api_token(connection: Connection, actor: Actor, token_id: int) -> Bearer:
    """The API token with this id that is not revoked. Raises Refusal MISSING."""
    bearer = tokens.api_token(connection, actor.workspace_id, token_id)
    if bearer is None or bearer.token.revoked_at is not None:
        raise missing("token")
    return bearer


def own_user(work: Work, user_id: int | None) -> User:
    """user() within a change."""
    return user(work.connection, work.actor, user_id)


def own_server(work: Work, server_id: int) -> Server:
    """server() within a change."""
    return server(work.connection, work.actor, server_id)


def own_credential(work: Work, credential_id: int) -> tuple[Credential, Server]:
    """credential() within a change."""
    return credential(work.connection, work.actor, credential_id, work.now)


def own_grant(work: Work, grant_id: int) -> Grant:
    """grant() within a change."""
    return grant(work.connection, work.actor, grant_id)


def _own_user(actor: Actor, user: User | None) -> User:
    if user is None or user.workspace_id != actor.workspace_id:
        raise missing("user")
    return user


def _absent(what: str, name: str, field: str | None) -> Refusal:
    if field is None:
        return missing(what)
    return invalid(field, f"There is no such {what}: {name!r}.", f"{what}-missing")
