"""Shows, creates and deletes system users by name; must hold no rules for them."""

from __future__ import annotations

from sqlalchemy import Connection

from keyrack.core.hosts import system_users
from keyrack.core.instance import Instance
from keyrack.core.lookups import own_server
from keyrack.core.together import within
from keyrack.core.work import Attempt, Work
from keyrack.errors import missing
from keyrack.model import Actor, SystemUser
from keyrack.store.hosts import servers
from keyrack.store.hosts import system_users as system_user_rows

_KIND = "system user"


def get(instance: Instance, actor: Actor, server_id: int, username: str) -> SystemUser:
    """The system user of this name. Raises Refusal MISSING or FORBIDDEN."""
    aim = "see an account"
    with Attempt(instance, actor, "systemusers:read", aim, target_kind=_KIND, server_id=server_id) as attempt:

        def question(connection: Connection) -> SystemUser | None:
            server = servers.get(connection, actor.workspace_id, server_id)
            system_user = None if server is None else system_user_rows.by_name(connection, server_id, username)
            return None if server is None or system_user is None else system_users.with_state(server, system_user)

        system_user = attempt.read(question)
        if system_user is None:
            raise missing(_KIND)
        return system_user


def put(instance: Instance, actor: Actor, server_id: int, username: str) -> SystemUser:
    """Create a system user of this name unless there is one. Raises Refusal as system_users.create does."""
    aim = "set up an account"
    with Attempt(instance, actor, "systemusers:write", aim, target_kind=_KIND, server_id=server_id) as attempt:

        def change(work: Work) -> SystemUser:
            server = own_server(work, server_id)
            system_user = system_user_rows.by_name(work.connection, server.id, username)
            if system_user is not None:
                work.no_event("it is there already")
                return system_users.with_state(server, system_user)
            work.no_event("its creation leaves one")
            return system_users.create(within(work), actor, server.id, username=username)

        return attempt.write(change)


def delete(instance: Instance, actor: Actor, server_id: int, username: str) -> SystemUser:
    """Delete the system user of this name with its keys, and answer it as it was. Raises Refusal MISSING or INVALID."""
    aim = "delete an account"
    with Attempt(instance, actor, "systemusers:write", aim, target_kind=_KIND, server_id=server_id) as attempt:

        def change(work: Work) -> SystemUser:
            server = own_server(work, server_id)
            system_user = system_user_rows.by_name(work.connection, server.id, username)
            if system_user is None:
                raise missing(_KIND)
            work.no_event("its deletion leaves one")
            return system_users.delete(within(work), actor, server.id, system_user.id)

        return attempt.write(change)
