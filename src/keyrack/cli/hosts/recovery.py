"""`keyrack hosts resync`, `damaged`: a database that went back or was changed past Keyrack; must hold no rule."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import click

from keyrack.cli.connection.calls import (
    PAGE_SIZE,
    Calls,
    connected,
    connection_options,
    if_missing,
    is_on_data,
    path_to,
)
from keyrack.cli.output.shown import say
from keyrack.cli.output.tables import NOTHING, as_json, dash, show_json, table

SERVERS = "`keyrack hosts list` shows which there are."
ROWS = "`keyrack hosts damaged` shows which there are."
HELD_WORDS = {
    "line": "held back",
    "revoked": "stays revoked",
    "lost": "lost",
    "account": "left as it is",
}


@click.command(name="resync")
@click.argument("reference", metavar="[SERVER]", required=False)
@click.option("--all", "everything", is_flag=True, help="Every server whose host knows more than the database.")
@click.option("--let-in", multiple=True, metavar="FINGERPRINT", help="Let this key in again; may be repeated.")
@click.option("--accept-database", is_flag=True, help="Hold nothing back: what the database says counts.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
@connection_options
def resync_hosts(
    reference: str | None,
    everything: bool,
    let_in: tuple[str, ...],
    accept_database: bool,
    yes: bool,
    json_wanted: bool,
    **given: Any,
) -> None:
    """Decide what holds on hosts that know more than a database that went back.

    It shows what the host refused and the database would let in, and what the host had and the database lost. What
    was refused stays refused, unless you say otherwise. With --json it decides only if --yes is given.
    """
    if (reference is None) != everything:
        raise click.UsageError("Name one SERVER, or --all.")
    with connected(given) as calls, if_missing(SERVERS):
        if reference is None:
            chosen = [(str(one["server_id"]), one["server"]) for one in calls.ask("GET", "/resync")["items"]]
        else:
            chosen = [(reference, calls.ask("GET", path_to("servers", reference))["name"])]
        wanted = _Decision(let_in, accept_database, yes)
        if json_wanted:
            show_json([_resync_quietly(calls, server, name, wanted) for server, name in chosen])
            return
        if not chosen:
            say("No host knows more than the database.")
        for server, name in chosen:
            _resync(calls, server, name, wanted)


@dataclass(frozen=True, slots=True)
class _Decision:
    """What the options say. let_in: fingerprints; yes: nobody is asked."""

    let_in: tuple[str, ...]
    accept_database: bool
    yes: bool

    def on(self, held: list[dict[str, Any]]) -> dict[str, Any]:
        """The body of the call that decides on what is held back on one server."""
        mine = [one for one in self.let_in if any(row["fingerprint"] == one for row in held)]
        return {"let_in": mine, "accept_database": self.accept_database}


def _resync_quietly(calls: Calls, server: str, name: str, wanted: _Decision) -> dict[str, object]:
    """Decide for one server without asking or printing; returns what --json shows of it."""
    path = path_to("servers", server, "resync")
    difference = _difference(calls, path)
    decision = wanted.on(difference["held_back"])
    waits = difference["waiting_for_host"] and not wanted.accept_database
    meant = bool(decision["let_in"]) or wanted.accept_database or (difference["undecided"] and not wanted.let_in)
    decided = bool(wanted.yes and meant and not waits)
    if decided:
        calls.ask("POST", path, decision)
    held = [
        {
            "what": HELD_WORDS[row["kind"]],
            "account": row["username"] or "",
            "fingerprint": row["fingerprint"] or "",
            "options": row["options"],
            "name": row["name"] or "",
        }
        for row in difference["held_back"]
    ]
    return {"server": name, "waits_for_host": bool(waits), "held": held, "decided": decided}


def _difference(calls: Calls, path: str) -> dict[str, Any]:
    """What is held back on a server, all pages of it."""
    difference: dict[str, Any] = calls.ask("GET", path, query={"per_page": PAGE_SIZE})
    onward = difference["next"]
    while onward is not None:
        page = calls.ask("GET", path, query={"per_page": PAGE_SIZE, "cursor": onward})
        difference["held_back"] += page["held_back"]
        onward = page["next"]
    return difference


def _resync(calls: Calls, server: str, name: str, wanted: _Decision) -> None:
    path = path_to("servers", server, "resync")
    difference = _difference(calls, path)
    if not difference["undecided"] and not difference["held_back"]:
        say(f"{name}: its host knows nothing that the database does not know.")
        return
    if difference["waiting_for_host"] and not wanted.accept_database:
        say(f"{name}: its host has not yet told what it obeyed; nothing new reaches it until then.")
        return
    rows = [
        (
            HELD_WORDS[row["kind"]],
            dash(row["username"]),
            dash(row["fingerprint"]),
            " ".join(row["options"]) or NOTHING,
            dash(row["name"]),
        )
        for row in difference["held_back"]
    ]
    say(f"{name}:")
    table(("WHAT", "ACCOUNT", "FINGERPRINT", "OPTIONS", "NAME"), rows)
    if not difference["undecided"] and not wanted.let_in and not wanted.accept_database:
        say("Decided; --let-in FINGERPRINT or --accept-database changes that.")
        return
    decision = wanted.on(difference["held_back"])
    if wanted.let_in and not decision["let_in"] and not wanted.accept_database:
        say(f"{name}: none of these keys is held back here.")
        return
    aim = "Let in what the database says" if wanted.accept_database else "Keep refused what is not named by --let-in"
    if not wanted.yes and not click.confirm(f"{aim}?"):
        raise click.ClickException("Nothing was decided.")
    calls.ask("POST", path, decision)
    say(f"Decided for {name}.")


@click.command(name="damaged")
@click.argument("reference", metavar="[SERVER]", required=False)
@click.option("--remove", "name", metavar="KIND:ID", help="Remove this row; its key is refused from then on.")
@click.option(
    "--reseal", "again", multiple=True, metavar="KIND:ID", help="Accept this row as it stands; all: every row."
)
@as_json
@connection_options
def damaged_rows(reference: str | None, name: str | None, again: Any, json_wanted: bool, **given: Any) -> None:
    """List, remove or accept rows that are not as Keyrack wrote them and open nothing.

    --reseal works on the data alone: only somebody who may read that may accept a row.
    """
    if again:
        if not is_on_data(given):
            raise click.UsageError("--reseal works on the data alone: give --data.")
        # Loaded only here: over HTTP a command need not wait for the database code.
        importlib.import_module("keyrack.cli.hosts.reseal").reseal(again, given)
        return
    with connected(given) as calls, if_missing(SERVERS if reference is not None else ROWS):
        if name is not None:
            gone = calls.ask("DELETE", path_to("damaged-rows", name))
            if json_wanted:
                show_json(gone)
            else:
                say(f"Removed {gone['row']}: {gone['what']}.")
            return
        rows = [(one["row"], one["what"]) for one in calls.every("/damaged-rows", {"server": reference})]
        table(("ROW", "WHAT IT SAYS NOW"), rows, json_wanted)
