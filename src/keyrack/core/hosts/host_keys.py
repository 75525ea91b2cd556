"""The host keys of servers as their own agents report them, so that nobody trusts on first use; must take no
host's word about another.

The first keys of a host are noted: they come signed with its agent's own secret. Any other one is an alarm, and people
are not told to trust it until somebody confirms it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keyrack.core.audit import alarms
from keyrack.core.hosts import ssh_lines
from keyrack.core.hosts.facts import SSH_PORT
from keyrack.core.instance import Instance
from keyrack.core.keys import who_can
from keyrack.core.lookups import own_server, server_named
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal, invalid, missing
from keyrack.model import Actor, Server
from keyrack.ssh import public_key
from keyrack.store.hosts import host_keys
from keyrack.store.hosts import servers as server_rows
from keyrack.store.hosts.host_keys import HostKey
from keyrack.store.hosts.reported_facts import is_port

MOST = 16
AT_ONCE = 200
CHANGED = "host-key-changed"


@dataclass(frozen=True, slots=True)
class ReportedHostKeys:
    """What a host says that its sshd shows: the port, and the keys by fingerprint, by type and base64."""

    port: int
    keys: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Reachable:
    """A server that somebody may log in on, as which accounts, and the host keys that may be trusted there.

    changed: it shows another one that nobody confirmed; port: 22 where its host never said.
    """

    server: Server
    accounts: tuple[str, ...]
    port: int
    keys: tuple[str, ...]
    changed: bool


def read(body: Mapping[str, Any]) -> ReportedHostKeys | None:
    """The host keys in a report; None where it says nothing of them. Raises Refusal INVALID.

    Invariant 1: what a host calls its key is one only if the strict parser says so; others are left out.
    """
    said = body.get("host_keys")
    if said is None:
        return None
    port = said.get("port") if isinstance(said, Mapping) else None
    lines = said.get("keys") if isinstance(said, Mapping) else None
    if not is_port(port) or not isinstance(lines, list) or len(lines) > MOST:
        raise invalid("host_keys", f"This takes a port and at most {MOST} keys.")
    keys: dict[str, str] = {}
    for line in lines:
        try:
            key = public_key.parse(line)
        except (public_key.KeyProblem, TypeError, AttributeError):
            continue
        keys[key.fingerprint] = key.canonical
    return ReportedHostKeys(port, keys) if keys else None


def store(work: Work, server: Server, reported: ReportedHostKeys) -> None:
    """Keep what a host shows, within the unit of work that takes its report."""
    known = {key.fingerprint: key for key in host_keys.of_server(work.connection, server.id)}
    for key in known.values():
        shown = key.fingerprint in reported.keys
        if not shown and not key.confirmed:
            host_keys.remove(work.connection, key.id)  # it is gone again, and nobody ever trusted it
        elif (key.shown, key.port) != (shown, reported.port):
            host_keys.change(work.connection, key.id, {"shown": shown, "port": reported.port})
    new = [fingerprint for fingerprint in reported.keys if fingerprint not in known]
    for fingerprint in new:
        host_keys.add(
            work.connection,
            {
                "server_id": server.id,
                "public_key": reported.keys[fingerprint],
                "fingerprint": fingerprint,
                "port": reported.port,
                "shown": True,
                "confirmed": not known,
                "first_at": work.now,
                "confirmed_at": None if known else work.now,
                "confirmed_by": None,
            },
        )
    if new and known:
        words = f"host {server.name} shows a host key that nobody confirmed: {', '.join(new)}"
        alarms.record(work.connection, server, CHANGED, words, work.now)
    elif new:
        work.record(f"Noted the host keys of {server.name}: {', '.join(new)}", naming_revisions=False)


def find(instance: Instance, actor: Actor, reference: str) -> list[HostKey]:
    """The host keys of a server, by name or id. Raises Refusal MISSING or FORBIDDEN."""
    with Attempt(instance, actor, "servers:read", "see host keys", target_kind="server") as attempt:
        return attempt.read(
            lambda connection: host_keys.of_server(connection, server_named(connection, actor, reference).id)
        )


def name_first(instance: Instance, actor: Actor, server_id: int, known: Iterable[tuple[str, int]]) -> None:
    """Name the first host keys of a server, so that people trust them before its agent reports any.

    known: line and port of each. Raises Refusal INVALID, MISSING, or TAKEN where some are known.
    """
    with Attempt(instance, actor, "servers:write", "name host keys", target_kind="server") as attempt:
        parsed = {key.fingerprint: (key, port) for key, port in ((_host_key(line), port) for line, port in known)}

        def change(work: Work) -> None:
            server = own_server(work, server_id)
            if host_keys.of_server(work.connection, server.id):
                raise Refusal(Kind.TAKEN, "host-keys-known", "Host keys of this server are known; confirm those.")
            for fingerprint, (key, port) in parsed.items():
                row = {"server_id": server.id, "public_key": key.canonical, "fingerprint": fingerprint, "port": port}
                by = {"confirmed": True, "first_at": work.now, "confirmed_at": work.now, "confirmed_by": actor.name}
                host_keys.add(work.connection, {**row, **by, "shown": False})
            if parsed and ssh_lines.port(server) is None:
                # Until its agent says it.
                port = next(port for _, port in parsed.values())
                server_rows.change(work.connection, server.id, {"facts": {**server.facts, SSH_PORT: port}})
            words = f"Named the host keys of {server.name}: {', '.join(parsed)}"
            work.record(words, target_id=server.id, server_id=server.id, level="warning")

        attempt.write(change)


def _host_key(line: str) -> public_key.PublicKey:
    try:
        return public_key.parse(line)
    except public_key.KeyProblem as problem:
        raise invalid("host_keys", str(problem)) from None


def confirm(
    instance: Instance, actor: Actor, reference: str, *, fingerprints: Sequence[str] | None = None
) -> list[HostKey]:
    """Have people trust what a server's host shows now, and nothing that it showed before.

    fingerprints: what the caller has seen of keys that are not confirmed; where it is not that any more, nothing is.
    Raises Refusal MISSING, or TAKEN.
    """
    with Attempt(instance, actor, "servers:write", "confirm host keys", target_kind="server") as attempt:

        def change(work: Work) -> list[HostKey]:
            server = server_named(work.connection, actor, reference)
            keys = host_keys.of_server(work.connection, server.id)
            if not any(key.shown for key in keys):
                raise missing("host key")
            new = sorted(key.fingerprint for key in keys if key.shown and not key.confirmed)
            if fingerprints is not None and sorted(fingerprints) != new:
                words = "The host shows other keys by now; look at them again."
                raise Refusal(Kind.TAKEN, "host-keys-changed", words, field="fingerprints")
            for key in keys:
                if not key.shown:
                    host_keys.remove(work.connection, key.id)
                elif not key.confirmed:
                    values = {"confirmed": True, "confirmed_at": work.now, "confirmed_by": actor.name}
                    host_keys.change(work.connection, key.id, values)
            ending = f": {', '.join(new)}" if new else ", which had not changed"
            work.record(
                f"Confirmed the host keys of {server.name}{ending}",
                target_id=server.id,
                server_id=server.id,
                level="warning",
            )
            return host_keys.of_server(work.connection, server.id)

        return attempt.write(change)


def reachable(instance: Instance, actor: Actor, user: str | None = None) -> list[Reachable]:
    """Where somebody may log in; user: by name, None for the actor. Raises Refusal as who_can.find does."""
    if user is None and actor.user_id is None:
        raise invalid("user", "Say who: an operator logs in nowhere.")
    accounts: dict[int, tuple[Server, dict[str, None]]] = {}
    cursor: str | None = ""
    while cursor is not None:
        page = who_can.find(instance, actor, user=user or actor.name, cursor=cursor, limit=AT_ONCE)
        for way in page.items:
            accounts.setdefault(way.server.id, (way.server, {}))[1][way.reason.username] = None
        cursor = page.next
    keys = instance.database.read(lambda connection: host_keys.of_servers(connection, accounts))
    return [_reachable(server, names, keys.get(server.id, ())) for server, names in accounts.values()]


def _reachable(server: Server, names: Iterable[str], known_keys: Sequence[HostKey]) -> Reachable:
    return Reachable(
        server=server,
        accounts=tuple(sorted(names)),
        port=ssh_lines.port(server) or (known_keys[-1].port if known_keys else ssh_lines.USUAL_PORT),
        keys=tuple(key.public_key for key in known_keys if key.confirmed),
        changed=any(key.shown and not key.confirmed for key in known_keys),
    )
