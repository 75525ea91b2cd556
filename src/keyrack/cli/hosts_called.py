"""`keyrack hosts list`, `sessions`, `observe` and others: hosts seen and steered over the API; must hold no rule."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from keyrack.cli.calls import ID, Calls, Refused, either, known, reached, to
from keyrack.cli.changes import dash
from keyrack.cli.shown import say
from keyrack.cli.spans import ago, seconds_of
from keyrack.cli.tables import as_json, table

FORBIDDEN = 403
THEN = ("keep", "drop-temporary", "drop-all")
"""What core.hosts.modes takes; named here, as that would load the database's parts."""


@click.command(name="list")
@click.option("--deleted", is_flag=True, help="Deleted servers instead, and whether their hosts have obeyed that.")
@as_json
@either
def list_hosts(deleted: bool, json_wanted: bool, **given: Any) -> None:
    """List hosts, each with its mode and state.

    APPLIED is the revision that the host obeys, of the one that it must obey; UNMANAGED counts the keys that Keyrack
    did not put there and on which nobody decided, where one may know that.
    """
    with reached(given) as calls:
        if deleted:
            gone = ("id", "name", "address", "deleted_at", "deleted_by", "acknowledged_at")
            told = [tuple(dash(one[field]) for field in gone) for one in calls.every("/deleted-servers")]
            table(("ID", "NAME", "ADDRESS", "DELETED", "BY", "OBEYED"), told, json_wanted)
            return
        servers = list(calls.every("/servers"))
        undecided = _undecided(calls)
        now, unknown = calls.now(), None if json_wanted else "-"
        rows = []
        for one in servers:
            seen = ago(now, one["seen_at"] and datetime.fromisoformat(one["seen_at"]))
            waiting = unknown if undecided is None else undecided.get(one["id"], 0)
            revisions = f"{one['applied']}/{one['wanted']}"
            rows.append((one["id"], one["name"], one["mode"], one["state"], revisions, seen, waiting))
        table(("ID", "NAME", "MODE", "STATE", "APPLIED", "SEEN", "UNMANAGED"), rows, json_wanted)


@click.command()
@click.argument("reference", metavar="SERVER")
@either
def observe(reference: str, **given: Any) -> None:
    """Have a host observe: it reports who gets in, and changes nothing about it."""
    _set_mode(reference, "observe", given)


@click.command()
@click.argument("reference", metavar="SERVER")
@either
def enforce(reference: str, **given: Any) -> None:
    """Have Keyrack's keys alone open a host.

    The host tries for a minute, and undoes it when it does not work.
    """
    _set_mode(reference, "enforce", given)


@click.command(name="offline-policy")
@click.argument("reference", metavar="[SERVER]", required=False)
@click.option("--tag", help="All servers that have this tag now, instead of one.")
@click.option("--after", required=True, metavar="TIME", help="Such as 90s, 30m, 1h, 7d; 0 for never.")
@click.option("--then", required=True, type=click.Choice(THEN), help="What the host does then.")
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


@click.command(name="sessions")
@click.argument("reference", metavar="SERVER")
@as_json
@either
def list_sessions(reference: str, json_wanted: bool, **given: Any) -> None:
    """List who is logged in on a host."""
    with reached(given) as calls, known("`keyrack hosts list` shows which there are."):
        rows = [
            (
                *(one["id"], one["username"], one["address"], one["started_at"]),
                *(dash(one["label"]), dash(one["fingerprint"]), "ending" if one["ending"] else "open"),
            )
            for one in calls.every(to("servers", reference, "sessions"))
        ]
        table(("ID", "ACCOUNT", "FROM", "SINCE", "KEY", "FINGERPRINT", "STATE"), rows, json_wanted)


@click.command(name="end-session")
@click.argument("reference", metavar="SERVER")
@click.argument("session_id", metavar="ID", type=ID)
@either
def end_session(reference: str, session_id: int, **given: Any) -> None:
    """Have a host end a login."""
    with reached(given) as calls, known(f"`keyrack hosts sessions {reference}` shows who is in."):
        one = calls.ask("DELETE", to("servers", reference, "sessions", session_id))
        say(f"Asked to end the session of {one['username']} from {one['address']}.")


def _undecided(calls: Calls) -> dict[int, int] | None:
    """How many unmanaged keys wait for a decision, by server; None where one may not know."""
    try:
        items = calls.ask("GET", "/unmanaged-keys/counts")["items"]
    except Refused as refused:
        if refused.status != FORBIDDEN:
            raise
        return None
    return {one["server_id"]: one["undecided"] for one in items}


def _set_mode(reference: str, mode: str, given: dict[str, Any]) -> None:
    with reached(given) as calls, known("`keyrack hosts list` shows which there are."):
        server = calls.ask("PATCH", to("servers", reference), {"mode": mode})
        say(f"{server['name']} is to {server['mode']}, with revision {server['wanted']}.")
        say(f"See what the host says: keyrack hosts show {server['id']}", err=True)
