"""`keyrack hosts show`, `keys`, `enrol`: what works on an instance's own data alone; must hold no rule."""

from __future__ import annotations

from typing import Any

import click

from keyrack.cli import options
from keyrack.cli.operator_context import operator_context, shared
from keyrack.cli.shown import say
from keyrack.cli.spans import moment
from keyrack.cli.tables import AT_ONCE, as_json, as_json_object, every, show_json, table
from keyrack.core.hosts import refused_logins, servers, status
from keyrack.core.hosts.facts import WRITERS
from keyrack.core.keys import credentials, last_uses
from keyrack.model import Server


@click.command()
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


@click.command(name="keys")
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


@click.command()
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
