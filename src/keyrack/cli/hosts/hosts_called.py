"""`keyrack hosts show`, `observe` and others: hosts seen and controlled by calls; must hold no rule."""

from __future__ import annotations

from typing import Any

import click

from keyrack.cli import sessions
from keyrack.cli.changes import changed, changing, tell
from keyrack.cli.connection.calls import (
    ID,
    connected,
    connection_options,
    if_missing,
    path_to,
)
from keyrack.cli.output.shown import say
from keyrack.cli.output.spans import seconds_of
from keyrack.cli.output.tables import NOTHING, as_json, as_json_object, dash, show_json, table
from keyrack.protocol.document_words import DROP_ALL, DROP_TEMPORARY, KEEP_ALL

_HINT = "`keyrack hosts list` shows which there are."


@click.command()
@click.argument("reference", metavar="SERVER")
@as_json_object
@connection_options
def show(reference: str, json_wanted: bool, **given: Any) -> None:
    """Show what one host is to do and what it reports."""
    with connected(given) as calls, if_missing(_HINT):
        server = calls.ask("GET", path_to("servers", reference))
        if json_wanted:
            show_json(_object(server))
            return
        applied = f"{server['applied']} since {server['applied_at']}" if server["applied_at"] else "none"
        facts = (
            ("server", f"{server['name']} (id {server['id']}, {server['address']}{_port(server)})"),
            ("tags", ", ".join(server["tags"]) or "none"),
            ("mode", server["mode"]),
            ("state", server["state"]),
            ("host says", server["enforcement"] or "nothing yet"),
            ("undone", server["undone"]),
            ("revision", f"wanted {server['wanted']}, applied {applied}"),
            ("last seen", dash(server["seen_at"])),
            ("when silent", server["offline_words"]),
            ("also writes", ", ".join(server["writers"])),
            ("agent", server["agent_version"] or "none"),
            ("system", " ".join(filter(None, (server["os"], server["os_version"]))) or "unknown"),
        )
        for name, value in facts:
            if value:
                say(f"{name:<12} {value}")
        for problem in server["problems"]:
            say(f"{'problem':<12} {problem}")
        if server["enrolled_at"] is None:
            say(f"Enrol it: keyrack hosts enrol {server['id']}", err=True)


def _port(server: dict[str, Any]) -> str:
    """The port of its sshd, if ssh has to be told: "" for 22."""
    return "" if server["ssh_port"] in (None, 22) else f" port {server['ssh_port']}"


@click.command()
@click.argument("reference", metavar="SERVER")
@changing
@connection_options
def observe(reference: str, dry_run: bool, json_wanted: bool, **given: Any) -> None:
    """Let a host only observe: it reports who gets in, and changes nothing."""
    _set_mode(reference, "observe", given, dry_run=dry_run, json_wanted=json_wanted)


@click.command()
@click.argument("reference", metavar="SERVER")
@changing
@connection_options
def enforce(reference: str, dry_run: bool, json_wanted: bool, **given: Any) -> None:
    """Let only Keyrack's keys open a host.

    The host tries it for a minute, and undoes it if it does not work.
    """
    _set_mode(reference, "enforce", given, dry_run=dry_run, json_wanted=json_wanted)


@click.command(name="offline-policy")
@click.argument("reference", metavar="[SERVER]", required=False)
@click.option("--tag", help="All servers that have this tag now, instead of one.")
@click.option("--after", required=True, metavar="TIME", help="Such as 90s, 30m, 1h, 7d; 0 for never.")
@click.option(
    "--then", required=True, type=click.Choice((KEEP_ALL, DROP_TEMPORARY, DROP_ALL)), help="What the host does then."
)
@as_json
@connection_options
def set_offline_policy(
    reference: str | None, tag: str | None, after: str, then: str, json_wanted: bool, **given: Any
) -> None:
    """Set what hosts do while the service does not answer."""
    if (reference is None) == (tag is None):
        raise click.UsageError("Name one SERVER, or several with --tag.")
    seconds = seconds_of(after)
    where = path_to("servers", reference) if reference is not None else path_to("tags", tag)
    with connected(given) as calls, if_missing(_HINT):
        policy = {"after_seconds": seconds, "then": then}
        policies = calls.ask("PUT", f"{where}/offline-policy", policy)["items"]
        if json_wanted:
            show_json(policies)
            return
        for server in policies:
            say(f"{server['name']}: {server['offline_words']}")


@click.command(name="keys")
@click.argument("reference", metavar="SERVER")
@as_json
@connection_options
def list_keys(reference: str, json_wanted: bool, **given: Any) -> None:
    """List the keys that Keyrack put on a host, each with its end and its last use."""
    with connected(given) as calls, if_missing(_HINT):
        rows = []
        for key in calls.every(path_to("servers", reference, "credentials")):
            seen = f"{key['last_used_at']} from {key['last_used_from']}" if key["last_used_at"] else NOTHING
            state = "acknowledged" if key["acknowledged"] else "on its way"
            if key.get("frozen"):  # an older service does not say
                state = f"{state}, but frozen"
            rows.append(
                (
                    key["id"],
                    key["label"],
                    key["username"],
                    key["fingerprint"],
                    dash(key["expires_at"]),
                    ", ".join(sorted(key["restrictions"])) or NOTHING,
                    seen,
                    f"{state}, but {key['refused']}" if key["refused"] else state,
                )
            )
        titles = ("ID", "LABEL", "ACCOUNT", "FINGERPRINT", "END", "RESTRICTIONS", "LAST USED", "STATE")
        table(titles, rows, json_wanted)


@click.command(name="sessions")
@click.argument("reference", metavar="SERVER")
@as_json
@connection_options
def list_sessions(reference: str, json_wanted: bool, **given: Any) -> None:
    """List who is logged in on a host."""
    with connected(given) as calls, if_missing(_HINT):
        table(sessions.TITLES[1:], sessions.rows(calls, reference), json_wanted)


@click.command(name="end-session")
@click.argument("reference", metavar="SERVER")
@click.argument("session_id", metavar="ID", type=ID)
@as_json_object
@connection_options
def end_session(reference: str, session_id: int, json_wanted: bool, **given: Any) -> None:
    """Tell a host to end a session."""
    with connected(given) as calls, if_missing(f"`keyrack hosts sessions {reference}` shows who is in."):
        session = calls.ask("DELETE", path_to("servers", reference, "sessions", session_id))
        tell(session, f"Asked to end the session of {session['username']} from {session['address']}.", json_wanted)


def _object(server: dict[str, Any]) -> dict[str, object]:
    """A host for programs; every field is always there, null where nothing is known."""
    same = ("id", "name", "address", "tags", "mode", "state", "wanted", "applied", "applied_at", "seen_at")
    return {
        **{name: server[name] for name in same},
        "enforcement": server["enforcement"] or None,
        "undone": server["undone"] or None,
        "when_silent": server["offline_words"] or None,
        "agent_version": server["agent_version"],
        "os": server["os"],
        "os_version": server["os_version"],
        "enrolled": server["enrolled_at"] is not None,
        "problems": server["problems"],
    }


def _set_mode(reference: str, mode: str, given: dict[str, Any], *, dry_run: bool, json_wanted: bool) -> None:
    def words(server: dict[str, Any]) -> str:
        return f"{server['name']} is to {server['mode']}, with revision {server['wanted']}."

    with connected(given) as calls, if_missing(_HINT):
        path, body = path_to("servers", reference), {"mode": mode}
        server = changed(calls, "PATCH", path, body, dry_run=dry_run, json_wanted=json_wanted, words=words)
        say(f"See what the host says: keyrack hosts show {server['id']}", err=True)
