"""`keyrack sessions …`: who is logged in on servers, seen and ended; must hold no rule."""

from __future__ import annotations

from typing import Any

import click

from keyrack.cli.changes import tell
from keyrack.cli.connection.calls import ID, Calls, connected, connection_options, if_missing, path_to
from keyrack.cli.output.tables import as_json, as_json_object, dash, table

TITLES = ("SERVER", "ID", "ACCOUNT", "FROM", "SINCE", "KEY", "FINGERPRINT", "STATE")


@click.group(name="sessions")
def command() -> None:
    """Who is logged in, and with which key."""


@command.command(name="list")
@click.argument("servers", metavar="[SERVER]...", nargs=-1)
@as_json
@connection_options
def list_sessions(servers: tuple[str, ...], json_wanted: bool, **given: Any) -> None:
    """List who is logged in on the servers given, or on all."""
    with connected(given) as calls, if_missing("`keyrack servers list` shows which there are."):
        places = [(one, one) for one in servers]
        places = places or [(str(one["id"]), one["name"]) for one in calls.every("/servers")]
        listed = [(name, *row) for reference, name in places for row in rows(calls, reference)]
        table(TITLES, listed, json_wanted)


def rows(calls: Calls, server: str) -> list[tuple[object, ...]]:
    """Who is logged in on a server, as TITLES has it but for the first."""
    return [
        (
            one["id"],
            one["username"],
            one["address"],
            one["started_at"],
            dash(one["label"]),
            dash(one["fingerprint"]),
            "ending" if one["ending"] else "open",
        )
        for one in calls.every(path_to("servers", server, "sessions"))
    ]


@command.command()
@click.argument("server", metavar="SERVER")
@click.argument("session_id", metavar="ID", type=ID)
@as_json_object
@connection_options
def end(server: str, session_id: int, json_wanted: bool, **given: Any) -> None:
    """Tell a host to end a session."""
    with connected(given) as calls, if_missing(f"`keyrack sessions list {server}` shows who is in."):
        one = calls.ask("DELETE", path_to("servers", server, "sessions", session_id))
        tell(one, f"Asked to end the session of {one['username']} from {one['address']}.", json_wanted)
