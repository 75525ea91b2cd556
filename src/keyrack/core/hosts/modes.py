"""Sets a host's mode (observe, enforce) and its offline policy; must not apply them, the agent does."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from keyrack.core.hosts import servers as own_servers
from keyrack.core.hosts.facts import UNDONE, UNDONE_SETTLED
from keyrack.core.hosts.status import OFFLINE_WORDS
from keyrack.core.instance import Instance
from keyrack.core.lookups import own_server
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal, invalid
from keyrack.model import MODES, OBSERVE, Actor, Server
from keyrack.protocol.document_words import DROP_ALL, DROP_TEMPORARY, KEEP_ALL
from keyrack.store import overview
from keyrack.store.hosts import servers

THEN = (KEEP_ALL, DROP_TEMPORARY, DROP_ALL)
SHORTEST_OFFLINE = 60
LONGEST_OFFLINE = 10 * 366 * 86400


def set_mode(instance: Instance, actor: Actor, server_id: int, mode: object) -> Server:
    """Have a host observe (report who gets in, change nothing) or enforce (only Keyrack's keys open it).

    mode: "observe", "enforce", or "auto": observe, and enforce once the host says that this shuts nobody out. The host
    tries enforcing for a minute, and undoes it by itself where it does not work. Raises Refusal MISSING or INVALID.
    """
    attempt = Attempt(
        instance, actor, "servers:write", "change how a host is held", target_kind="server", server_id=server_id
    )
    with attempt:
        if mode not in MODES:
            raise invalid("mode", "The mode is observe, enforce or auto.")

        def change(work: Work) -> Server:
            server = own_server(work, server_id)
            # A new decision settles why it was undone the last time.
            facts = {name: fact for name, fact in server.facts.items() if name not in ("undone", UNDONE_SETTLED)}
            if mode == OBSERVE and server.facts.get("enforcement") == UNDONE:
                # The host goes on reporting it until it is asked to enforce again; it is no alarm any more.
                facts[UNDONE_SETTLED] = server.facts.get("undone", server.facts.get(UNDONE_SETTLED, ""))
            servers.change(work.connection, server.id, {"mode": mode, "facts": facts})
            work.bump_revision(server.id)
            work.record(f"Host {server.name} is to {mode}, before: {server.mode}", target_id=server.id, level="warning")
            return own_server(work, server.id)

        return attempt.write(change)


@dataclass(frozen=True, slots=True)
class OfflinePolicyCount:
    """An offline policy, and how many hosts have it."""

    after_seconds: int
    then: str
    hosts: int


def offline_policies(instance: Instance, actor: Actor) -> list[OfflinePolicyCount]:
    """The offline policies of the workspace's hosts, the most frequent one first."""
    with Attempt(instance, actor, "servers:read", "see the offline policies", target_kind="server") as attempt:
        policies = attempt.read(lambda connection: overview.offline_policies(connection, actor.workspace_id))
        return [
            OfflinePolicyCount(row.after_seconds, row.then if row.after_seconds else KEEP_ALL, row.hosts)
            for row in policies
        ]


def may_set_offline_policy(instance: Instance, actor: Actor, tag: str) -> None:
    """Raises Refusal as set_offline_policy() does where the actor may not set that of servers with a tag."""
    with _offline_attempt(instance, actor, None) as attempt:
        label = own_servers.tag(tag)
        attempt.read(lambda connection: _tagged(connection, actor, label))


def _offline_attempt(instance: Instance, actor: Actor, server_id: int | None) -> Attempt:
    aim = "change the offline policy"
    return Attempt(instance, actor, "servers:write", aim, target_kind="server", server_id=server_id)


def _tagged(connection: Connection, actor: Actor, label: str | None) -> list[int]:
    chosen = list(servers.ids_with_tag(connection, actor.workspace_id, str(label)))
    if not chosen:
        raise Refusal(Kind.MISSING, "server-missing", f"No server has the tag {label!r}.")
    return chosen


def set_offline_policy(
    instance: Instance,
    actor: Actor,
    *,
    after_seconds: object,
    then: object,
    server_id: int | None = None,
    tag: str | None = None,
) -> list[Server]:
    """Set what hosts do once the service has been silent for after_seconds, 0 for never.

    then: keep, drop-temporary or drop-all. Either one server, or all that have a tag now. Raises Refusal MISSING where
    there is none, or INVALID.
    """
    with _offline_attempt(instance, actor, server_id) as attempt:
        in_bounds = type(after_seconds) is int and SHORTEST_OFFLINE <= after_seconds <= LONGEST_OFFLINE
        if not in_bounds and not (type(after_seconds) is int and after_seconds == 0):
            raise invalid("after_seconds", f"after_seconds takes 0 for never, or at least {SHORTEST_OFFLINE} seconds.")
        if then not in THEN:
            raise invalid("then", "then takes keep, drop-temporary or drop-all.")
        if (server_id is None) == (tag is None):
            raise invalid("server_id", "Name one server or one tag.")
        label = None if tag is None else own_servers.tag(tag)

        def change(work: Work) -> list[Server]:
            chosen = (
                [own_server(work, server_id).id] if server_id is not None else _tagged(work.connection, actor, label)
            )
            for one in chosen:
                servers.change(work.connection, one, {"offline_after_seconds": after_seconds, "offline_then": then})
                work.bump_revision(one)
                server = own_server(work, one)
                lasting = f"after {after_seconds} seconds {OFFLINE_WORDS[str(then)]}" if after_seconds else "keys stay"
                work.record(
                    f"Set the offline policy of {server.name}: {lasting}",
                    target_id=one,
                    server_id=one,
                    level="warning",
                )
            return [own_server(work, one) for one in chosen]

        return attempt.write(change)
