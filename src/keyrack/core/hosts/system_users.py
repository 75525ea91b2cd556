"""System users of servers: create, list, show, change, delete; must not touch accounts itself, the agent does."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from threading import BoundedSemaphore
from typing import Any

from sqlalchemy import Connection

from keyrack.core import cursors, lookups, quotas, validation
from keyrack.core.hosts import account_passwords, accounts
from keyrack.core.hosts.last_seen import is_online
from keyrack.core.instance import Instance
from keyrack.core.keys import propagation
from keyrack.core.lookups import own_server
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal, invalid, missing
from keyrack.model import Actor, Page, Server, SystemUser
from keyrack.protocol.words import count
from keyrack.store.database import DatabaseUnavailable
from keyrack.store.hosts import servers, system_users
from keyrack.store.keys import credentials

SUPERUSER = "root"
ASK_EVERY_SECONDS = 0.1

_waiting = BoundedSemaphore(8)


def create(
    instance: Instance,
    actor: Actor,
    server_id: int,
    *,
    username: object,
    password: object = None,
    existing: bool = False,
) -> SystemUser:
    """Create a system user on a server; its host makes the account if its own configuration allows that.

    password: only its hash is stored, for the host; None: the account has no password; existing: the host has the
    account already, under any name that a host may use, and is not asked to make it. Raises Refusal MISSING, INVALID,
    LIMIT, or TAKEN for the name.
    """
    attempt = Attempt(
        instance,
        actor,
        "systemusers:write",
        "create an account",
        target_kind="system user",
        server_id=server_id,
    )
    with attempt:
        name = validation.account(username) if existing else validation.username(username)
        hashed = None if password is None else account_passwords.hash_for_host(password)

        def change(work: Work) -> SystemUser:
            server = own_server(work, server_id)
            if system_users.by_name(work.connection, server.id, name) is not None:
                raise Refusal(
                    Kind.TAKEN, "username-taken", "The server has a system user of that name.", field="username"
                )
            quotas.refuse_more(work, "system user", server.id)
            encrypted = None if hashed is None else accounts.encrypt_password(instance, server.id, name, hashed)
            with work.raising((server.id,)) as revisions:
                system_user_id = system_users.add(
                    work.connection,
                    server.id,
                    name,
                    deletable=True,
                    managed=not existing,
                    at=work.now,
                    revision=revisions[server.id],
                    encrypted_password=encrypted,
                )
                system_users.keep_account(work.connection, server.id, name)
            work.record(f"Created account {name} on {server.name}", target_id=system_user_id)
            return _own(work, server.id, system_user_id)

        return attempt.write(change)


def get(instance: Instance, actor: Actor, server_id: int, system_user_id: int) -> SystemUser:
    """One system user of a server. Raises Refusal MISSING."""
    attempt = Attempt(
        instance,
        actor,
        "systemusers:read",
        "see an account",
        target_kind="system user",
        server_id=server_id,
    )
    with attempt:

        def question(connection: Connection) -> SystemUser:
            server = servers.get(connection, actor.workspace_id, server_id)
            if server is None:
                raise missing("system user")
            return with_state(server, lookups.system_user(connection, server.id, system_user_id))

        return attempt.read(question)


def has(instance: Instance, actor: Actor, server_id: int, system_user_id: int) -> bool:
    """Whether a server of the actor's workspace has this system user; for the same calls as servers.is_there."""

    def question(connection: Connection) -> bool:
        server = servers.own_id(connection, actor.workspace_id, server_id)
        return server is not None and system_users.get(connection, server, system_user_id) is not None

    return instance.database.read(question)


def wrong_fields(*, username: object = None, password: object = None) -> tuple[Refusal, ...]:
    """All refusals that create() would raise for these fields, for callers that report all at once; None is skipped."""
    return validation.refusals((username, validation.username), (password, account_passwords.as_bytes))


def find(
    instance: Instance,
    actor: Actor,
    server_id: int,
    *,
    search: str = "",
    offset: int = 0,
    limit: int = 15,
    cursor: str | None = None,
) -> Page[SystemUser]:
    """A page of a server's system users, oldest first. Raises Refusal MISSING for the server.

    search: part of the name; cursor: of the page before, "" for the first one; takes the place of offset.
    """
    attempt = Attempt(
        instance,
        actor,
        "systemusers:read",
        "list accounts",
        target_kind="system user",
        server_id=server_id,
    )
    with attempt:
        after = cursors.place(cursor, int)

        def question(connection: Connection) -> Page[SystemUser]:
            server = lookups.server(connection, actor, server_id)
            page = system_users.find(connection, server.id, search=search, offset=offset, limit=limit, after=after)
            return replace(page, items=tuple(with_state(server, user) for user in page.items))

        return attempt.read(question)


def set_password(
    instance: Instance, actor: Actor, server_id: int, system_user_id: int, *, password: object
) -> SystemUser:
    """Have the host set an account's password. Raises Refusal MISSING, or INVALID, also for root's password."""
    attempt = _attempt(instance, actor, "set an account's password", server_id, system_user_id)
    with attempt:
        hashed = account_passwords.hash_for_host(password)

        def change(work: Work) -> SystemUser:
            server = own_server(work, server_id)
            user = _own(work, server.id, system_user_id)
            if user.username == SUPERUSER:
                raise invalid("password", "The password of root is set on the server itself.", "root-password")
            encrypted = accounts.encrypt_password(instance, server.id, user.username, hashed)
            _ask(work, server.id, user.id, {"encrypted_password": encrypted})
            work.record(
                f"Changed the password of account {user.username} on {server.name}",
                target_id=user.id,
                level="warning",
            )
            return _own(work, server.id, user.id)

        return attempt.write(change)


def ask_deployment_key(instance: Instance, actor: Actor, server_id: int, system_user_id: int) -> SystemUser:
    """Have the host make a key pair for an account; the private key never leaves the host.

    The record has the public line once the host has reported it. Asking again makes no other pair. Raises Refusal
    MISSING.
    """
    attempt = _attempt(instance, actor, "make a deployment key", server_id, system_user_id)
    with attempt:

        def change(work: Work) -> SystemUser:
            server = own_server(work, server_id)
            user = _own(work, server.id, system_user_id)
            if user.deployment_key_asked_at is None:
                _ask(work, server.id, user.id, {"deployment_key_asked_at": work.now})
            work.record(
                f"Asked for a deployment key of account {user.username} on {server.name}",
                target_id=user.id,
            )
            return _own(work, server.id, user.id)

        return attempt.write(change)


def wait_for_deployment_key(instance: Instance, user: SystemUser, *, seconds: float) -> SystemUser:
    """The system user once its host has reported a deployment key, or as it is after some seconds.

    1. No wait for a host that is away or has refused. 2. Nor where eight calls wait already, as each holds one of the
    threads that all requests share. 3. Nor longer than the database answers: what was asked for is done in any case.
    """
    deadline = time.monotonic() + seconds

    def question(connection: Connection) -> tuple[SystemUser | None, bool]:
        server = servers.by_id(connection, user.server_id)
        current = None if server is None else system_users.get(connection, user.server_id, user.id)
        if server is None or current is None:
            return None, False
        current = with_state(server, current)
        # 1
        return current, current.deployment_key is None and current.state == accounts.PENDING and is_online(
            server, instance.now()
        )

    if user.deployment_key is not None or not _waiting.acquire(blocking=False):  # 2
        return user
    try:
        while True:
            system_user, worth_waiting = instance.database.read(question)
            if not worth_waiting or time.monotonic() > deadline:
                return system_user or user
            time.sleep(ASK_EVERY_SECONDS)
    except DatabaseUnavailable:  # 3
        return user
    finally:
        _waiting.release()


def delete(instance: Instance, actor: Actor, server_id: int, system_user_id: int) -> SystemUser:
    """Delete a system user with its keys, and answer it as it was. Raises Refusal MISSING or INVALID."""
    attempt = _attempt(instance, actor, "delete an account", server_id, system_user_id)
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
            held = credentials.credentials_of_system_user(work.connection, system_user.id)
            system_users.remove(work.connection, system_user.id)
            if system_user.managed:
                system_users.ask_removal(work.connection, server.id, system_user.username, work.now)
            propagation.withdrawn(work, (server.id,), [(key.fingerprint, key.public_key) for key in held])
            work.record(
                f"Deleted account {system_user.username} with {count(len(held), 'SSH key')} from {server.name}",
                target_id=system_user.id,
            )
            return system_user

        return attempt.write(change)


def _attempt(instance: Instance, actor: Actor, aim: str, server_id: int, system_user_id: int) -> Attempt:
    return Attempt(
        instance,
        actor,
        "systemusers:write",
        aim,
        target_kind="system user",
        target_id=system_user_id,
        server_id=server_id,
    )


def _ask(work: Work, server_id: int, system_user_id: int, values: Mapping[str, Any]) -> None:
    """Ask the host for something about an account, with a new revision of the server."""
    revision = work.bump_revision(server_id)
    system_users.change(work.connection, system_user_id, {**values, "revision": revision})


def _own(work: Work, server_id: int, system_user_id: int) -> SystemUser:
    system_user = lookups.system_user(work.connection, server_id, system_user_id)
    server = servers.by_id(work.connection, server_id)
    assert server is not None
    return with_state(server, system_user)


def with_state(server: Server, user: SystemUser) -> SystemUser:
    """A system user with how far its host is with it."""
    return replace(user, state=accounts.state(server, user), reason=accounts.reason(server, user))
