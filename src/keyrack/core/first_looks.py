"""What is said first of a call that is wrong otherwise: that the actor may not make it, or that what it names is not
there; each looks as the use case would; must change nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

from keyrack import policy
from keyrack.core.git import repositories
from keyrack.core.hosts import servers as own_servers
from keyrack.core.instance import Instance
from keyrack.core.keys import damaged_rows, user_keys
from keyrack.core.people.named_people import named
from keyrack.core.work import Attempt
from keyrack.errors import missing
from keyrack.model import Actor
from keyrack.store.hosts import servers, unmanaged_keys
from keyrack.store.keys import endings, freezes
from keyrack.store.keys import user_keys as user_key_rows
from keyrack.store.people import tokens

AIM = "make a call that is not as it must be"


def credential(instance: Instance, actor: Actor, credential_id: int) -> None:
    """Of a call that changes a key on a server. Raises Refusal FORBIDDEN or MISSING."""

    def is_there(connection: Connection) -> bool:
        found = endings.credential(connection, credential_id, instance.now())
        return found is not None and servers.own_id(connection, actor.workspace_id, found.server_id) is not None

    _look(instance, actor, "credentials:write", "SSH key", is_there)


def renewed_key(instance: Instance, actor: Actor, key_id: int) -> None:
    """Of a call that renews a user's key, as renewals.key has it. Raises Refusal FORBIDDEN or MISSING."""
    found = instance.database.read(lambda connection: endings.user_key(connection, key_id, instance.now()))
    own = found is None or found.user_id == actor.user_id or policy.may(actor, "people:write") is not None
    there = found is not None and found.workspace_id == actor.workspace_id
    there = there and (not own or (found is not None and found.user_id == actor.user_id))
    _look(instance, actor, user_keys.ADD if own else "people:write", "SSH key", lambda connection: there)


def confirmed_key(instance: Instance, actor: Actor, key_id: int) -> None:
    """Of a call that confirms a user's key, as freezes.confirm_key has it. Raises Refusal FORBIDDEN or MISSING."""
    row = instance.database.read(lambda connection: freezes.user_key(connection, actor.workspace_id, key_id))
    mine = row is not None and row.user_id == actor.user_id
    programs = row is not None and not mine and row.user_kind == "service"
    action = "people:write" if programs else user_keys.ADD
    _look(instance, actor, action, "SSH key", lambda connection: mine or programs)


def key_of_person(instance: Instance, actor: Actor, person: str, key_id: int) -> None:
    """Of a call that deletes the key of a user. Raises Refusal FORBIDDEN or MISSING."""
    own = actor.user_id is not None and person == actor.name

    def is_there(connection: Connection) -> bool:
        owner = named(connection, actor, person)
        return user_key_rows.get_user_key(connection, owner.id, key_id) is not None

    _look(instance, actor, user_keys.DELETE if own else "people:write", "SSH key", is_there)


def key_sources(instance: Instance, actor: Actor, person: str, *, delete: bool = False) -> None:
    """Of a call that changes where a user's keys come from. Raises Refusal FORBIDDEN or MISSING."""
    own = user_keys.DELETE if delete else user_keys.ADD
    _person(instance, actor, own if person == actor.name else "people:write", person)


def person(instance: Instance, actor: Actor, name: str) -> None:
    """Of a call that changes something of a user. Raises Refusal FORBIDDEN or MISSING."""
    _person(instance, actor, "people:write", name)


def rotated_token(instance: Instance, actor: Actor, token_id: int) -> None:
    """Of a call that rotates a token, as api_tokens.rotate has it. Raises Refusal FORBIDDEN or MISSING."""
    found = instance.database.read(lambda connection: tokens.api_token(connection, actor.workspace_id, token_id))
    own = found is not None and found.user.id == actor.user_id
    there = found is not None and found.token.revoked_at is None
    _look(instance, actor, "iam:self" if own else "people:write", "token", lambda connection: there)


def unmanaged_key(instance: Instance, actor: Actor, server_id: int, found_id: int) -> None:
    """Of a call about a key found on a host. Raises Refusal FORBIDDEN or MISSING."""

    def is_there(connection: Connection) -> bool:
        if servers.own_id(connection, actor.workspace_id, server_id) is None:
            raise missing("server")
        found = unmanaged_keys.get(connection, actor.workspace_id, server_id, found_id)
        return found is not None and found.state != "gone"

    _look(instance, actor, "credentials:write", "unmanaged key", is_there)


def tag(instance: Instance, actor: Actor, name: str) -> None:
    """Of a call about the servers with a tag. Raises Refusal FORBIDDEN, MISSING, or INVALID for what is no tag."""

    def is_there(connection: Connection) -> bool:
        return bool(list(servers.ids_with_tag(connection, actor.workspace_id, own_servers.tag(name))))

    _look(instance, actor, "servers:write", "server", is_there)


def damaged_row(instance: Instance, actor: Actor, name: str) -> None:
    """Of a call that removes a damaged row. Raises Refusal as damaged_rows.remove."""
    with Attempt(instance, actor, damaged_rows.action_of(name), AIM, target_kind="call") as attempt:
        attempt.read(lambda connection: damaged_rows.named(connection, actor.workspace_id, name))


def repository(instance: Instance, actor: Actor, repository_id: int, action: str) -> None:
    """Of a call that does something with a repository. Raises Refusal FORBIDDEN or MISSING."""
    _, entitled = repositories.reach(instance, actor, repository_id, action)
    _look(instance, entitled, action, "repository", lambda connection: True)


def _person(instance: Instance, actor: Actor, action: str, name: str) -> None:
    _look(instance, actor, action, "user", lambda connection: named(connection, actor, name) is not None)


def _look(instance: Instance, actor: Actor, action: str, what: str, is_there: Callable[[Connection], bool]) -> None:
    with Attempt(instance, actor, action, AIM, target_kind="call") as attempt:
        if not attempt.read(is_there):
            raise missing(what)
