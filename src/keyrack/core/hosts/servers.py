"""Servers: create, show, rename, tag, delete, invite a host; must not speak to any host itself."""

from __future__ import annotations

import ipaddress
import re
import secrets
import shlex
from collections.abc import Iterable
from datetime import timedelta
from functools import partial
from typing import Any

from sqlalchemy import Connection

from keyrack.core import lookups, quotas, validation
from keyrack.core.hosts import deleted_servers
from keyrack.core.instance import Instance
from keyrack.core.keys import propagation
from keyrack.core.lookups import NUMBER, own_server
from keyrack.core.validation import KEEP
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal, invalid
from keyrack.model import ENFORCE, OBSERVE, Actor, Mode, Page, Server
from keyrack.ssh.names import hidden_character
from keyrack.store.hosts import deleted_servers as deleted_rows
from keyrack.store.hosts import enrolments, servers, system_users
from keyrack.store.keys import access

ENROLMENT_LIFE = timedelta(hours=24)
# As RunCloud has it, every server has these two, and neither can be deleted.
FIRST_SYSTEM_USERS = ("runcloud", "root")
# Other programs read a name whose last part is a number as an IPv4 address (URL Standard, 3.5).
HOST_NAME = re.compile(
    r"(?=.{1,253}\Z)(?!.*(?:\A|\.)[0-9]+\.?\Z)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9-]{1,63})*\.?"
)
FOLDERS = (".", "..")
TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")


def create(
    instance: Instance,
    actor: Actor,
    *,
    name: object,
    address: object,
    provider: object = None,
    tags: Iterable[str] = (),
    mode: Mode = ENFORCE,
    server_id: int | None = None,
) -> Server:
    """Create a server that waits for its host to enrol.

    name: 1 to 255 characters, see server_name; address: an IP address or host name; provider: free text or None; tags:
    letters, digits and ._:-; server_id: the id that it had elsewhere, None for a new one. Raises Refusal INVALID,
    LIMIT, or TAKEN for that id.
    """
    attempt = Attempt(instance, actor, "servers:write", "create a host", target_kind="server")
    with attempt:
        checked_name = server_name(name)
        checked_address = host_address(address)
        checked_provider = None if provider is None else validation.text(provider, field="provider")
        labels = [tag(value) for value in tags]

        def change(work: Work) -> Server:
            quotas.refuse_more(work, "server")
            if server_id is not None and _is_taken(work.connection, server_id):
                words = f"The id {server_id} is or was another server's; leave it out for a new one."
                raise Refusal(Kind.TAKEN, "id-taken", words, field="id")
            number = servers.add(
                work.connection,
                actor.workspace_id,
                host=f"h_{secrets.token_hex(16)}",
                name=checked_name,
                address=checked_address,
                provider=checked_provider,
                mode=mode,
                at=work.now,
                server_id=server_id,
            )
            for username in FIRST_SYSTEM_USERS:
                system_users.add(work.connection, number, username, deletable=False, managed=False, at=work.now)
            if labels:
                servers.set_tags(work.connection, number, labels)
            work.record(f"Created host {checked_name} ({checked_address})", target_id=number, server_id=number)
            return own_server(work, number)

        return attempt.write(change)


def server_name(value: object) -> str:
    """A valid new name of a server. One that reads as an id or a folder would make calls reach another server.

    Raises Refusal INVALID.
    """
    title = validation.new_name(value)
    if reads_as_id(title):
        raise invalid("name", "A name of digits alone is read as a server's id; give it a letter, as in web-13.")
    if title in FOLDERS:
        raise invalid("name", f"In addresses {title} is a folder, and names no server; give it a letter, as in web-13.")
    return title


def reads_as_id(name: str) -> bool:
    """Whether a name reads as a server's id, also one that no server has, such as 0013."""
    return name.isascii() and name.isdigit()


def _is_taken(connection: Connection, server_id: int) -> bool:
    """Whether a server of any workspace, also a deleted one, has this id."""
    return servers.by_id(connection, server_id) is not None or deleted_rows.get(connection, server_id) is not None


def get(instance: Instance, actor: Actor, server_id: int) -> Server:
    """One server. Raises Refusal MISSING."""
    attempt = Attempt(instance, actor, "servers:read", "see a host", target_kind="server", server_id=server_id)
    with attempt:
        return attempt.read(lambda connection: lookups.server(connection, actor, server_id))


def named(instance: Instance, actor: Actor, reference: str) -> Server:
    """The server with this id or this name; digits are read as an id first.

    Raises Refusal MISSING, or TAKEN where several servers have the name.
    """
    attempt = Attempt(instance, actor, "servers:read", "see a host", target_kind="server")
    with attempt:
        return attempt.read(lambda connection: lookups.server_named(connection, actor, reference))


def is_there(instance: Instance, actor: Actor, reference: str) -> bool:
    """Whether the actor's workspace has a server with this id or name. Leaves no event: it is for calls that are
    refused in any case, after the action was checked.
    """

    def question(connection: Connection) -> bool:
        number = int(reference) if NUMBER.fullmatch(reference) else None
        return servers.own_id(connection, actor.workspace_id, number) is not None or bool(
            servers.all_by_name(connection, actor.workspace_id, reference)
        )

    return hidden_character(reference) is None and instance.database.read(question)


def has(instance: Instance, actor: Actor, server_id: int) -> bool:
    """Whether the actor's workspace has a server with this id; for the same calls as is_there."""
    return instance.database.read(
        lambda connection: servers.own_id(connection, actor.workspace_id, server_id) is not None
    )


def shared(instance: Instance, actor: Actor, *, offset: int = 0, limit: int = 15) -> Page[Server]:
    """The servers that other workspaces share with this one: none, as no workspace sees anything of another."""
    attempt = Attempt(instance, actor, "servers:read", "list shared hosts", target_kind="server")
    with attempt:
        return Page(items=(), total=0, offset=offset, limit=limit)


def rename(
    instance: Instance,
    actor: Actor,
    server_id: int,
    *,
    name: object,
    provider: object = KEEP,
    address: object = KEEP,
) -> Server:
    """Change the name of a server and, unless KEEP, its provider and address. Raises Refusal MISSING or INVALID."""
    attempt = Attempt(
        instance,
        actor,
        "servers:write",
        "rename a host",
        target_kind="server",
        target_id=server_id,
        server_id=server_id,
    )
    with attempt:
        wanted: dict[str, Any] = {"name": validation.text(name, field="name")}
        if provider is not KEEP:
            wanted["provider"] = None if provider is None else validation.text(provider, field="provider")
        if address is not KEEP:
            wanted["address"] = host_address(address)

        def change(work: Work) -> Server:
            server = own_server(work, server_id)
            values = {column: value for column, value in wanted.items() if value != getattr(server, column)}
            if "name" in values:
                server_name(name)
            if not values:
                work.no_event("it is as wanted already")
                return server
            servers.change(work.connection, server.id, {**values, "updated_at": work.now})
            words = []
            if "name" in values:
                words.append(f"Renamed host {server.name} to {values['name']}")
            if "address" in values:
                words.append(f"Changed the address of {server.name} from {server.address} to {values['address']}")
            if "provider" in values:
                words.append(f"Changed the provider of {server.name} to {values['provider'] or 'none'}")
            work.record("; ".join(words), target_id=server.id)
            return own_server(work, server.id)

        return attempt.write(change)


def delete(instance: Instance, actor: Actor, server_id: int) -> Server:
    """Delete a server with its keys, and answer it as it was; no list has it any more.

    Its host gets its last document at its next contact, however late that is; deleted_servers.find shows whether it
    has.
    """
    attempt = Attempt(
        instance,
        actor,
        "servers:write",
        "delete a host",
        target_kind="server",
        target_id=server_id,
        server_id=server_id,
    )
    with attempt:

        def change(work: Work) -> Server:
            server = own_server(work, server_id)
            # Raised before the event, which then names the revision: receipts show when the host obeys it.
            has_host = deleted_servers.keep(work, server, work.bump_revision(server.id))
            told = "; its host is told at its next contact that no key of Keyrack opens it any more" if has_host else ""
            work.record(f"Deleted host {server.name} ({server.address}){told}", target_id=server.id, level="warning")
            servers.remove(work.connection, server.id)
            return server

        return attempt.write(change)


def invite(instance: Instance, actor: Actor, server_id: int) -> str:
    """A one-time token with which a host enrols as this server within ENROLMENT_LIFE; it is shown only this once."""
    return invitation(instance, actor, server_id)[1]


def invitation(instance: Instance, actor: Actor, server_id: int) -> tuple[Server, str]:
    """A server, and a one-time token for it as invite() makes it."""
    attempt = Attempt(instance, actor, "servers:write", "invite a host", target_kind="server", server_id=server_id)
    with attempt:
        token = secrets.token_urlsafe(32)
        secret_hash = instance.key.hash_token(token)

        def change(work: Work) -> tuple[Server, str]:
            server = own_server(work, server_id)
            enrolments.forget_ended(work.connection, server.id, work.now)
            quotas.refuse_more(work, "enrolment", server.id)
            enrolments.add(
                work.connection,
                server.id,
                secret_hash,
                at=work.now,
                expires_at=work.now + ENROLMENT_LIFE,
            )
            work.record(f"Made an installation script for host {server.name}", target_id=server.id)
            return server, token

        return attempt.write(change)


def installation_line(instance: Instance, actor: Actor, server_id: int, *, replace: bool = False) -> str:
    """The shell line, with a one-time token, that enrols a host as this server when root pastes it there.

    replace: the line also works where that machine is enrolled already, as another host or a copy of one; so it does
    wherever a copy of this server's host was noticed. Raises Refusal MISSING.
    """
    server, token = invitation(instance, actor, server_id)
    url = instance.settings.url
    script = shlex.quote(f"{url}/agent/install.sh")
    # Whoever pastes it as root decides, and may leave the last options out. It never says --mode enforce, as people may
    # be logged in there with keys that Keyrack does not know.
    allowed = "" if server.mode == OBSERVE else " --mode auto --allow-accounts"
    if replace or server.copied_at is not None:
        allowed += " --replace"
    # The token is in the environment, as every account can read arguments.
    return f"curl -fsSL {script} | KEYRACK_AGENT_TOKEN={shlex.quote(token)} sh -s -- --url {shlex.quote(url)}{allowed}"


def retag(instance: Instance, actor: Actor, server_id: int, tags: Iterable[str]) -> Server:
    """Give a server these tags and no others; keys that grants on tags let in come and go with them."""
    attempt = Attempt(
        instance, actor, "servers:write", "change a host's tags", target_kind="server", server_id=server_id
    )
    with attempt:
        labels = [tag(value) for value in tags]

        def change(work: Work) -> Server:
            server = own_server(work, server_id)
            before = access.granted_keys(work.connection, server.id, server.workspace_id, work.now)
            servers.set_tags(work.connection, server.id, labels)
            after = access.granted_keys(work.connection, server.id, server.workspace_id, work.now)
            propagation.unrevoke(work, (server.id,), (granted.user_key.fingerprint or "" for granted in after))
            keys_before = {
                (granted.user_key.fingerprint or "", granted.user_key.public_key or "") for granted in before
            }
            propagation.withdrawn(work, (server.id,), sorted(keys_before))
            work.record(
                f"Tagged host {server.name}: {', '.join(sorted(labels)) or 'nothing'}",
                target_id=server.id,
            )
            return own_server(work, server.id)

        return attempt.write(change)


def wrong_fields(*, name: object = None, address: object = None, provider: object = None) -> tuple[Refusal, ...]:
    """All refusals that create() would raise for these fields, for callers that report all at once; None is skipped."""
    return validation.refusals(
        (name, server_name),
        (address, host_address),
        (provider, partial(validation.text, field="provider")),
    )


def host_address(value: object) -> str:
    """A valid IP address or host name. Raises Refusal INVALID."""
    if isinstance(value, str):
        try:
            return str(ipaddress.ip_address(value))
        except ValueError:
            if HOST_NAME.fullmatch(value):
                return value
    raise invalid("address", "The address must be an IP address or a host name, for example 192.0.2.10.")


def tag(value: object) -> str:
    """A valid tag of a server. Raises Refusal INVALID."""
    if isinstance(value, str) and TAG.fullmatch(value):
        return value
    raise invalid("tags", "A tag is made of letters, digits and . _ : -, at most 64 of them.")
