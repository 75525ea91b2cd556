"""`keyrack hosts …`: what an operator sees of hosts and tells them; must hold no rule, the core has them."""

from __future__ import annotations

import copy
from typing import Any

import click

from keyrack.cli import events, options, recovery, revocation, server_changes, unmanaged_keys
from keyrack.cli import servers as shared_servers
from keyrack.cli.calls import ID, either, known, reached, to
from keyrack.cli.operator_context import operator_context, shared
from keyrack.cli.shown import say
from keyrack.cli.spans import ago, moment, seconds_of
from keyrack.cli.tables import AT_ONCE, as_json, as_json_object, every, show_json, table
from keyrack.core.hosts import deleted_servers, modes, refused_logins, servers, sessions, status
from keyrack.core.hosts import unmanaged_keys as unmanaged
from keyrack.core.hosts.facts import WRITERS
from keyrack.core.keys import credentials, last_uses
from keyrack.model import Server


@click.group(name="hosts")
def command() -> None:
    """Hosts as the operator of this instance sees and steers them.

    SERVER is a name or an id. Everything here is also in the API: docs/api/keyrack.md. What revokes, renames, moves,
    steers, ends and decides goes there where one is logged in; `keyrack servers` and `sessions` list there.
    """


for _elsewhere in (
    unmanaged_keys.list_unmanaged,
    unmanaged_keys.accept,
    unmanaged_keys.ignore,
    unmanaged_keys.remove,
    revocation.revoke,
    revocation.list_revoked,
    revocation.show_receipts,
    recovery.resync_hosts,
    recovery.damaged_rows,
    server_changes.rename,
    server_changes.move,
    shared_servers.host_keys,
    server_changes.copy_gone,
    events.command,
):
    command.add_command(_elsewhere)


@command.command(name="list")
@click.option("--deleted", is_flag=True, help="Deleted servers instead, and whether their hosts have obeyed that.")
@as_json
@shared
def list_hosts(deleted: bool, json_wanted: bool, **given: Any) -> None:
    """List hosts, each with its mode and state.

    APPLIED is the revision that the host obeys, of the one that it must obey; UNMANAGED counts the keys that Keyrack
    did not put there and on which nobody decided.
    """
    with operator_context(given) as at:
        if deleted:
            gone = every(lambda offset: deleted_servers.find(at.instance, at.actor, offset=offset, limit=AT_ONCE))
            told = [
                (one.id, one.name, one.address, moment(one.deleted_at), one.deleted_by, moment(one.acknowledged_at))
                for one in gone
            ]
            table(("ID", "NAME", "ADDRESS", "DELETED", "BY", "OBEYED"), told, json_wanted)
            return
        undecided = unmanaged.counts(at.instance, at.actor)
        rows = []
        for server in every(lambda offset: servers.find(at.instance, at.actor, offset=offset, limit=AT_ONCE)):
            held = status.of(at.instance, server)
            revisions = f"{held.applied}/{held.wanted}"
            seen = ago(at.instance, held.seen_at)
            rows.append((server.id, server.name, held.mode, held.state, revisions, seen, undecided.get(server.id, 0)))
        table(("ID", "NAME", "MODE", "STATE", "APPLIED", "SEEN", "UNMANAGED"), rows, json_wanted)


@command.command()
@click.argument("reference", metavar="SERVER")
@as_json_object
@shared
def show(reference: str, json_wanted: bool, **given: Any) -> None:
    """Show what one host is to do and what it says it does."""
    with operator_context(given) as at:
        server = at.server(reference)
        held = status.of(at.instance, server)
        if json_wanted:
            show_json(_object(server, held))
            return
        applied = f"{held.applied} since {moment(held.applied_at)}" if held.applied_at else "none"
        facts = (
            ("server", f"{server.name} (id {server.id}, {server.address})"),
            ("tags", ", ".join(server.tags) or "none"),
            ("mode", held.mode),
            ("state", held.state),
            ("host says", held.enforcement or "nothing yet"),
            ("undone", held.undone),
            ("revision", f"wanted {held.wanted}, applied {applied}"),
            ("last seen", moment(held.seen_at)),
            ("when silent", held.offline_words),
            ("keys too", ", ".join(map(str, server.facts.get(WRITERS) or ()))),
            ("agent", server.agent_version or "none"),
            ("system", " ".join(filter(None, (server.os, server.os_version))) or "unknown"),
        )
        for name, value in facts:
            if value:
                say(f"{name:<12} {value}")
        for problem in held.problems:
            say(f"{'problem':<12} {problem}")
        if server.enrolled_at is None:
            say(f"Enrol it: keyrack hosts enrol {server.id}", err=True)


@command.command()
@click.argument("reference", metavar="SERVER")
@either
def observe(reference: str, **given: Any) -> None:
    """Have a host observe: it reports who gets in, and changes nothing about it."""
    _set_mode(reference, "observe", given)


@command.command()
@click.argument("reference", metavar="SERVER")
@either
def enforce(reference: str, **given: Any) -> None:
    """Have Keyrack's keys alone open a host.

    The host tries for a minute, and undoes it when it does not work.
    """
    _set_mode(reference, "enforce", given)


@command.command(name="offline-policy")
@click.argument("reference", metavar="[SERVER]", required=False)
@click.option("--tag", help="All servers that have this tag now, instead of one.")
@click.option("--after", required=True, metavar="TIME", help="Such as 90s, 30m, 1h, 7d; 0 for never.")
@click.option("--then", required=True, type=click.Choice(modes.THEN), help="What the host does then.")
@either
def set_offline_policy(reference: str | None, tag: str | None, after: str, then: str, **given: Any) -> None:
    """Set what hosts do while the service does not answer."""
    if (reference is None) == (tag is None):
        raise click.UsageError("Name one SERVER, or several with --tag.")
    seconds = seconds_of(after)
    where = to("servers", reference) if reference is not None else to("tags", tag)
    with reached(given) as calls, known("`keyrack hosts list` shows which there are."):
        policy = {"after_seconds": seconds, "then": then}
        for server in calls.ask("PUT", f"{where}/offline-policy", policy)["items"]:
            say(f"{server['name']}: {server['offline_words']}")


@command.command(name="keys")
@click.argument("reference", metavar="SERVER")
@as_json
@shared
def list_keys(reference: str, json_wanted: bool, **given: Any) -> None:
    """List the keys that Keyrack put on a host, each with its end and its last use."""
    with operator_context(given) as at:
        server = at.server(reference)
        found = list(
            every(lambda offset: credentials.find(at.instance, at.actor, server.id, offset=offset, limit=AT_ONCE))
        )
        logins = refused_logins.of(server)
        used = last_uses.on_server(at.instance, at.actor, server.id, [one.fingerprint for one in found])
        rows = []
        for one in found:
            last = used.get(one.fingerprint, ())
            seen = f"{moment(last[0].at)} from {last[0].address}" if last else "-"
            limits = ", ".join(sorted(one.restrictions)) or "-"
            state = "delivered" if one.delivered else "on its way"
            refused = logins.why(one.username, one.fingerprint)
            state = f"{state}, but {refused}" if refused else state
            rows.append((one.id, one.label, one.username, one.fingerprint, moment(one.expires_at), limits, seen, state))
        titles = ("ID", "LABEL", "ACCOUNT", "FINGERPRINT", "END", "RESTRICTIONS", "LAST USED", "STATE")
        table(titles, rows, json_wanted)


@command.command(name="sessions")
@click.argument("reference", metavar="SERVER")
@as_json
@shared
def list_sessions(reference: str, json_wanted: bool, **given: Any) -> None:
    """List who is logged in on a host."""
    with operator_context(given) as at:
        server = at.server(reference)
        rows = [
            (one.id, one.username, one.address, moment(one.started_at), one.label or "-", one.fingerprint or "-")
            + (("ending",) if one.ending else ("open",))
            for one in every(
                lambda offset: sessions.find(at.instance, at.actor, server.id, offset=offset, limit=AT_ONCE)
            )
        ]
        table(("ID", "ACCOUNT", "FROM", "SINCE", "KEY", "FINGERPRINT", "STATE"), rows, json_wanted)


@command.command(name="end-session")
@click.argument("reference", metavar="SERVER")
@click.argument("session_id", metavar="ID", type=ID)
@either
def end_session(reference: str, session_id: int, **given: Any) -> None:
    """Have a host end a login."""
    with reached(given) as calls, known(f"`keyrack hosts sessions {reference}` shows who is in."):
        one = calls.ask("DELETE", to("servers", reference, "sessions", session_id))
        say(f"Asked to end the session of {one['username']} from {one['address']}.")


@command.command()
@click.argument("reference", metavar="SERVER")
@click.option("--replace", is_flag=True, help="The machine is a host already, such as a copy of one: make it this one.")
@options.public_url
@shared
def enrol(reference: str, replace: bool, **given: Any) -> None:
    """Print the line that enrols a host.

    For root to paste there; its token works once, for 24 hours.

    The line names the service's address: give --public-url, or set it where `keyrack serve` reads it.
    """
    with operator_context(given) as at:
        say(servers.installation_line(at.instance, at.actor, at.server(reference).id, replace=replace))


def _object(server: Server, held: status.HostStatus) -> dict[str, object]:
    """A host for programs; every field is always there, null where nothing is known."""
    return {
        "id": server.id,
        "name": server.name,
        "address": server.address,
        "tags": list(server.tags),
        "mode": held.mode,
        "state": held.state,
        "enforcement": held.enforcement or None,
        "undone": held.undone or None,
        "wanted": held.wanted,
        "applied": held.applied,
        "applied_at": moment(held.applied_at) if held.applied_at else None,
        "seen_at": moment(held.seen_at) if held.seen_at else None,
        "when_silent": held.offline_words or None,
        "agent_version": server.agent_version,
        "os": server.os,
        "os_version": server.os_version,
        "enrolled": server.enrolled_at is not None,
        "problems": list(held.problems),
    }


def _set_mode(reference: str, mode: str, given: dict[str, Any]) -> None:
    with reached(given) as calls, known("`keyrack hosts list` shows which there are."):
        server = calls.ask("PATCH", to("servers", reference), {"mode": mode})
        say(f"{server['name']} is to {server['mode']}, with revision {server['wanted']}.")
        say(f"See what the host says: keyrack hosts show {server['id']}", err=True)


# What they were called before 0.2; operators' scripts may still say so. No help shows them.
for _former, _name in (("adopt", "observe"), ("found", "unmanaged"), ("stale", "offline-policy")):
    _alias = copy.copy(command.commands[_name])
    _alias.hidden = True
    command.add_command(_alias, _former)
