"""The host keys of servers as their own agents report them, so that nobody has to trust on first use; must believe no
host about another one.

The first keys of a host are trusted, as its agent's secret authenticates the report. Any other key is an alarm, and
people are not told to trust it until somebody confirms it.
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

MAX = 16
PAGE_SIZE = 200
CHANGED = "host-key-changed"


@dataclass(frozen=True, slots=True)
class ReportedHostKeys:
    """What a host says that its sshd shows: the port; the keys as type and base64, by fingerprint."""

    port: int
    keys: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Reachable:
    """A server that somebody may log in on, the accounts, and the host keys to trust there.

    port: 22 where its host has not said; changed: the host shows a key that nobody has confirmed.
    """

    server: Server
    accounts: tuple[str, ...]
    port: int
    keys: tuple[str, ...]
    changed: bool


def read(body: Mapping[str, Any]) -> ReportedHostKeys | None:
    """The host keys in a report, None where it has none. Raises Refusal INVALID.

    Invariant 1: only what the strict parser takes is a key; anything else that a host names is left out.
    """
    reported = body.get("host_keys")
    if reported is None:
        return None
    port = reported.get("port") if isinstance(reported, Mapping) else None
    lines = reported.get("keys") if isinstance(reported, Mapping) else None
    if not is_port(port) or not isinstance(lines, list) or len(lines) > MAX:
        raise invalid("host_keys", f"This takes a port and at most {MAX} keys.")
    keys: dict[str, str] = {}
    for line in lines:
        try:
            key = public_key.parse(line)
        except (public_key.KeyProblem, TypeError, AttributeError):
            continue
        keys[key.fingerprint] = key.canonical
    return ReportedHostKeys(port, keys) if keys else None


def store(work: Work, server: Server, reported: ReportedHostKeys) -> None:
    """Store the host keys that a host shows, within the unit of work that takes its report."""
    known = {key.fingerprint: key for key in host_keys.of_server(work.connection, server.id)}
    for key in known.values():
        shown = key.fingerprint in reported.keys
        if not shown and not key.confirmed:
            host_keys.remove(work.connection, key.id)  # it is shown no longer, and nobody was told to trust it
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
        alarms.record(work.connection, server, CHANGED, unconfirmed_words(server, new), work.now)
    elif new:
        work.record(f"Noted the host keys of {server.name}: {', '.join(new)}", naming_revisions=False)


def unconfirmed_words(server: Server, fingerprints: Iterable[str]) -> str:
    """The alarm that a host shows host keys which nobody has confirmed."""
    return f"host {server.name} shows a host key that nobody confirmed: {', '.join(fingerprints)}"


def find(instance: Instance, actor: Actor, reference: str) -> list[HostKey]:
    """The host keys of a server, by name or id. Raises Refusal MISSING or FORBIDDEN."""
    with Attempt(instance, actor, "servers:read", "see host keys", target_kind="server") as attempt:
        return attempt.read(
            lambda connection: host_keys.of_server(connection, server_named(connection, actor, reference).id)
        )


def name_first(instance: Instance, actor: Actor, server_id: int, known: Iterable[tuple[str, int]]) -> None:
    """Enter the first host keys of a server, so that people can trust them before its agent reports any.

    known: pairs of line and port. Raises Refusal INVALID, MISSING, or TAKEN where host keys are known already.
    """
    with Attempt(instance, actor, "servers:write", "name host keys", target_kind="server") as attempt:
        parsed = {key.fingerprint: (key, port) for key, port in ((_host_key(line), port) for line, port in known)}

        def change(work: Work) -> None:
            server = own_server(work, server_id)
            if host_keys.of_server(work.connection, server.id):
                raise Refusal(Kind.TAKEN, "host-keys-known", "Host keys of this server are known; confirm those.")
            for fingerprint, (key, port) in parsed.items():
                host_keys.add(
                    work.connection,
                    {
                        "server_id": server.id,
                        "public_key": key.canonical,
                        "fingerprint": fingerprint,
                        "port": port,
                        "shown": False,
                        "confirmed": True,
                        "first_at": work.now,
                        "confirmed_at": work.now,
                        "confirmed_by": actor.name,
                    },
                )
            if parsed and ssh_lines.port(server) is None:
                # The port counts until the agent reports one.
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
    """Have people trust the host keys that a server's host shows now, and no others.

    fingerprints: the unconfirmed keys that the caller has seen, None for any; where others are shown by now, nothing is
    confirmed. Raises Refusal MISSING or TAKEN.
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
        page = who_can.find(instance, actor, user=user or actor.name, cursor=cursor, limit=PAGE_SIZE)
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
