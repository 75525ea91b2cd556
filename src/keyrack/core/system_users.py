"""System users of servers: create, list, show, delete; must not touch accounts itself, the agent does."""

from __future__ import annotations

from keyrack.core import acceptance, delivery
from keyrack.core.credentials import own_server
from keyrack.core.instance import Instance
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal, missing
from keyrack.model import Actor, Page, SystemUser
from keyrack.store import keys, servers


def create(instance: Instance, actor: Actor, server_id: int, *, username: object) -> SystemUser:
    """Create a system user on a server. Raises Refusal MISSING, INVALID, or TAKEN for the name."""
    attempt = Attempt(
        instance,
        actor,
        "systemusers:write",
        "create a system user",
        target_kind="system user",
        server_id=server_id,
    )
    with attempt:
        name = acceptance.username(username)

        def change(work: Work) -> SystemUser:
            server = own_server(work, server_id)
            if servers.system_user_by_name(work.connection, server.id, name) is not None:
                raise Refusal(Kind.TAKEN, "username-taken", "The username has already been taken.", field="username")
            system_user_id = servers.add_system_user(
                work.connection, server.id, name, deletable=True, managed=True, at=work.now
            )
            work.touch(server.id)
            work.record(f"Created system user {name} on server {server.name}", target_id=system_user_id)
            return _own(work, server.id, system_user_id)

        return attempt.write(change)


def get(instance: Instance, actor: Actor, server_id: int, system_user_id: int) -> SystemUser:
    """One system user of a server. Raises Refusal MISSING."""
    attempt = Attempt(
        instance,
        actor,
        "systemusers:read",
        "see a system user",
        target_kind="system user",
        server_id=server_id,
    )
    with attempt:
        found = attempt.read(
            lambda connection: (
                servers.get_system_user(connection, server_id, system_user_id)
                if servers.own_id(connection, actor.workspace_id, server_id)
                else None
            )
        )
        if found is None:
            raise missing("system user")
        return found


def find(
    instance: Instance, actor: Actor, server_id: int, *, search: str = "", offset: int = 0, limit: int = 15
) -> Page[SystemUser]:
    """A page of a server's system users, oldest first. Raises Refusal MISSING for the server."""
    attempt = Attempt(
        instance,
        actor,
        "systemusers:read",
        "list system users",
        target_kind="system user",
        server_id=server_id,
    )
    with attempt:
        found = attempt.read(
            lambda connection: (
                servers.find_system_users(connection, server_id, search=search, offset=offset, limit=limit)
                if servers.own_id(connection, actor.workspace_id, server_id)
                else None
            )
        )
        if found is None:
            raise missing("server")
        return found


def delete(instance: Instance, actor: Actor, server_id: int, system_user_id: int) -> SystemUser:
    """Delete a system user with its keys, and answer it as it was. Raises Refusal MISSING or INVALID."""
    attempt = Attempt(
        instance,
        actor,
        "systemusers:write",
        "delete a system user",
        target_kind="system user",
        target_id=system_user_id,
        server_id=server_id,
    )
    with attempt:

        def change(work: Work) -> SystemUser:
            server = own_server(work, server_id)
            system_user = _own(work, server.id, system_user_id)
            if not system_user.deletable:
                raise Refusal(
                    Kind.INVALID,
                    "not-deletable",
                    f"The system user {system_user.username} cannot be deleted.",
                    field="username",
                )
            held = keys.credentials_of_system_user(work.connection, system_user.id)
            servers.remove_system_user(work.connection, system_user.id)
            delivery.left(work, (server.id,), [(key.fingerprint, key.public_key) for key in held])
            work.record(
                f"Deleted system user {system_user.username} with {len(held)} SSH keys from server {server.name}",
                target_id=system_user.id,
            )
            return system_user

        return attempt.write(change)


def _own(work: Work, server_id: int, system_user_id: int) -> SystemUser:
    found = servers.get_system_user(work.connection, server_id, system_user_id)
    if found is None:
        raise missing("system user")
    return found
