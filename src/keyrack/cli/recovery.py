"""`keyrack hosts resync`, `damaged`: a database that went back or was changed past Keyrack; must hold no rule."""

from __future__ import annotations

from typing import Any

import click

from keyrack.cli.operator_context import OperatorContext, operator_context, shared
from keyrack.cli.shown import say
from keyrack.cli.tables import as_json, show_json, table
from keyrack.core.hosts import resync
from keyrack.core.keys import damaged_rows as damaged
from keyrack.model import Server

HELD_WORDS = {
    "line": "held back",
    "revoked": "stays revoked",
    "lost": "lost",
    "account": "left as it is",
}


@click.command(name="resync")
@click.argument("reference", metavar="[SERVER]", required=False)
@click.option("--all", "everything", is_flag=True, help="Every server whose host knows more than the database.")
@click.option("--let-in", multiple=True, metavar="FINGERPRINT", help="Let this key in again; may be given repeatedly.")
@click.option("--accept-database", is_flag=True, help="Hold nothing back: what the database says counts.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
@shared
def resync_hosts(
    reference: str | None,
    everything: bool,
    let_in: tuple[str, ...],
    accept_database: bool,
    yes: bool,
    json_wanted: bool,
    **given: Any,
) -> None:
    """Decide on hosts that know more than the database, as it went back.

    It shows what the host refused and the database would let in, and what the host had and the database lost. What
    was refused stays refused, unless you say otherwise. With --json it decides only if --yes is given.
    """
    if (reference is None) != everything:
        raise click.UsageError("Name one SERVER, or --all.")
    with operator_context(given) as at:
        chosen = resync.waiting(at.instance, at.actor) if reference is None else (at.server(reference),)
        if json_wanted:
            show_json([_resync_quietly(at, server, let_in, accept_database, yes) for server in chosen])
            return
        if not chosen:
            say("No host knows more than the database.")
        for server in chosen:
            _resync(at, server, let_in, accept_database, yes)


def _resync_quietly(
    at: OperatorContext, server: Server, let_in: tuple[str, ...], accept_database: bool, yes: bool
) -> dict[str, object]:
    """One server for programs: what its host knew, whether that waits for the host, and whether it was decided now."""
    found = resync.difference(at.instance, at.actor, server.id)
    mine = tuple(one for one in let_in if any(row.fingerprint == one for row in found.held))
    waits = found.asked and not accept_database
    wanted = bool(mine) or accept_database or (found.undecided and not let_in)
    if yes and wanted and not waits:
        resync.decide(at.instance, at.actor, server.id, let_in=mine, accept_database=accept_database)
    held = [
        {
            "what": HELD_WORDS[row.kind],
            "account": row.username,
            "fingerprint": row.fingerprint,
            "options": list(row.options),
            "name": row.name,
        }
        for row in found.held
    ]
    decided = bool(yes and wanted and not waits)
    return {"server": server.name, "waits_for_host": bool(waits), "held": held, "decided": decided}


def _resync(at: OperatorContext, server: Server, let_in: tuple[str, ...], accept_database: bool, yes: bool) -> None:
    found = resync.difference(at.instance, at.actor, server.id)
    if not found.undecided and not found.held:
        say(f"{server.name}: its host knows nothing that the database does not know.")
        return
    if found.asked and not accept_database:
        say(f"{server.name}: its host has not yet told what it obeyed; nothing new reaches it until then.")
        return
    rows = [
        (
            HELD_WORDS[row.kind],
            row.username or "-",
            row.fingerprint or "-",
            " ".join(row.options) or "-",
            row.name or "-",
        )
        for row in found.held
    ]
    say(f"{server.name}:")
    table(("WHAT", "ACCOUNT", "FINGERPRINT", "OPTIONS", "NAME"), rows)
    if not found.undecided and not let_in and not accept_database:
        say("Decided; --let-in FINGERPRINT or --accept-database changes that.")
        return
    mine = tuple(one for one in let_in if any(row.fingerprint == one for row in found.held))
    if let_in and not mine and not accept_database:
        say(f"{server.name}: none of these keys is held back here.")
        return
    aim = "Let in what the database says" if accept_database else "Keep refused what is not named by --let-in"
    if not yes and not click.confirm(f"{aim}?"):
        raise click.ClickException("Nothing was decided.")
    resync.decide(at.instance, at.actor, server.id, let_in=mine, accept_database=accept_database)
    say(f"Decided for {server.name}.")


@click.command(name="damaged")
@click.argument("reference", metavar="[SERVER]", required=False)
@click.option("--remove", "name", metavar="KIND:ID", help="Remove this row; its key is refused from then on.")
@click.option("--reseal", "again", multiple=True, metavar="KIND:ID", help="Let this row (or: all) count as it stands.")
@as_json
@shared
def damaged_rows(reference: str | None, name: str | None, again: Any, json_wanted: bool, **given: Any) -> None:
    """List rows that are not as Keyrack wrote them and open nothing, remove one, or let it count as it stands."""
    with operator_context(given) as at:
        if again:
            for row in damaged.reseal(at.instance, at.actor, again):
                say(f"Sealed {row.name} as it stands: {row.what}.")
            return
        if name is not None:
            gone = damaged.remove(at.instance, at.actor, name)
            say(f"Removed {gone.name}: {gone.what}.")
            return
        server_id = None if reference is None else at.server(reference).id
        rows = [(row.name, row.what) for row in damaged.find(at.instance, at.actor, server_id)]
        table(("ROW", "WHAT IT SAYS NOW"), rows, json_wanted)
