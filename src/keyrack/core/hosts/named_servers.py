"""Creates or changes a server by its name, with its accounts, as one change; must hold no rules for servers."""

from __future__ import annotations

from collections.abc import Sequence

from keyrack.core.hosts import server_changes, servers, system_users
from keyrack.core.instance import Instance
from keyrack.core.lookups import server_named
from keyrack.core.together import within
from keyrack.core.validation import KEEP
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal, invalid
from keyrack.model import Actor, Server
from keyrack.store.hosts import system_users as system_user_rows


def put(
    instance: Instance,
    actor: Actor,
    reference: str,
    *,
    address: object = KEEP,
    provider: object = KEEP,
    tags: Sequence[str] | None = None,
    mode: str | None = None,
    accounts: Sequence[str] = (),
) -> Server:
    """Make a server of this name, or with this id, as wanted; what is KEEP or None stays.

    accounts: to add where they are not there; others stay. A new server needs an address. Raises Refusal INVALID,
    FORBIDDEN, or TAKEN where several servers have the name.
    """
    with Attempt(instance, actor, "servers:write", "set up a host", target_kind="server") as attempt:

        def change(work: Work) -> Server:
            work.no_event("each part leaves an event")
            inside = within(work)
            server = _server_or_none(work, reference)
            if server is None:
                server = _create(inside, actor, reference, address, provider, tags)
            server_id = server.id
            server_changes.change(
                inside,
                actor,
                server_id,
                address=KEEP if address == server.address else address,
                provider=KEEP if provider == server.provider else provider,
                tags=tags,
                mode=None if mode == server.mode else mode,
            )
            for account in dict.fromkeys(accounts):
                if system_user_rows.by_name(work.connection, server_id, account) is None:
                    system_users.create(inside, actor, server_id, username=account)
            return server_named(work.connection, work.actor, str(server_id))

        return attempt.write(change)


def may_put(instance: Instance, actor: Actor) -> None:
    """Raises Refusal FORBIDDEN where the actor may not set up servers."""
    with Attempt(instance, actor, "servers:write", "set up a host", target_kind="server"):
        return


def _server_or_none(work: Work, reference: str) -> Server | None:
    try:
        return server_named(work.connection, work.actor, reference)
    except Refusal as refusal:
        if refusal.kind is not Kind.MISSING:
            raise
        return None


def _create(
    inner: Instance, actor: Actor, name: str, address: object, provider: object, tags: Sequence[str] | None
) -> Server:
    if servers.reads_as_id(name):
        raise invalid("name", "There is no server with this id, and a name is no number; give it a name.")
    if address is KEEP:
        raise invalid("address", "There is no such server yet; a new one needs its address.")
    maker = None if provider is KEEP else provider
    return servers.create(inner, actor, name=name, address=address, provider=maker, tags=tags or ())
