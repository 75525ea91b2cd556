"""`keyrack freeze …`: keys open no new session until their owners confirm them; must hold no rule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from keyrack.cli.changes import changed, changing
from keyrack.cli.connection.calls import ID, PAGE_SIZE, Calls, connected, connection_options, if_missing, path_to
from keyrack.cli.output import receipts
from keyrack.cli.output.shown import say
from keyrack.cli.output.tables import as_json, as_json_object, dash, show_json, table
from keyrack.protocol.words import count

HINT = "`keyrack freeze list` shows which there are."


@click.group(name="freeze")
def command() -> None:
    """Stop keys from opening new sessions until their owners confirm them (`keyrack keys confirm`).

    Open sessions go on, and break-glass keys keep working.
    """


@command.command()
@click.option("--user", metavar="NAME", help="The keys of this user.")
@click.option("--server", metavar="SERVER", help="The keys on this server.")
@click.option("--all", "everything", is_flag=True, help="All keys of the workspace.")
@click.option("--reason", "--why", "reason", metavar="TEXT", help="Why, for those who ask later.")
@click.option(
    "--dry-run", is_flag=True, help="Show how many keys it would freeze, on how many servers; change nothing."
)
@as_json_object
@connection_options
def keys(
    user: str | None,
    server: str | None,
    everything: bool,
    reason: str | None,
    dry_run: bool,
    json_wanted: bool,
    **given: Any,
) -> None:
    """Freeze keys: keyrack freeze keys --user alice --reason "a laptop was stolen" """
    if sum((user is not None, server is not None, everything)) != 1:
        raise click.UsageError("Name one: --user, --server or --all.")
    with connected(given) as calls:
        body = {"user": user, "server": server, "reason": reason, "preview": dry_run}
        made = calls.ask("POST", "/freezes", body)
    if json_wanted:
        show_json(made)
        return
    servers, break_glass = len(made["servers"]), made["break_glass"]
    more = f"; {count(break_glass, 'break-glass key')} not frozen" if break_glass else ""
    keys = count(made["keys"], "key")
    if dry_run and not made["keys"]:
        say(f"There is no key to freeze{more}. Nothing was changed.")
    elif dry_run:
        say(f"{keys} would open no new session, on {count(servers, 'server')}{more}. Nothing was changed.")
    else:
        none = f"{'opens' if made['keys'] == 1 else 'open'} no new session on {count(servers, 'server')}"
        say(f"{keys} {none} until confirmed{more}.")
        say(f"Which hosts obey: keyrack freeze show {made['id']}", err=True)
    if everything:
        say("Deploy keys of repositories keep working; revoke a stolen one with keyrack hosts revoke.", err=True)


@command.command(name="list")
@as_json
@connection_options
def list_freezes(json_wanted: bool, **given: Any) -> None:
    """List freezes, newest first."""
    with connected(given) as calls:
        rows = [
            (
                one["id"],
                one["at"],
                one["asked_by"],
                f"user {one['user']}" if one["user_id"] else f"server {one['server']}" if one["server_id"] else "all",
                one["keys"],
                dash(one["ended_at"]),
                dash(one["reason"]),
            )
            for one in _every(calls)
        ]
    table(("ID", "AT", "BY", "OF", "KEYS", "ENDED", "REASON"), rows, json_wanted)


def _every(calls: Calls) -> Iterator[dict[str, Any]]:
    """All freezes, page after page."""
    before: int | None = None
    while True:
        page = calls.ask("GET", "/freezes", query={"per_page": PAGE_SIZE, "before": before})["items"]
        yield from page
        if len(page) < PAGE_SIZE:
            return
        before = page[-1]["id"]


@command.command()
@click.argument("freeze_id", metavar="ID", type=ID)
@as_json
@connection_options
def show(freeze_id: int, json_wanted: bool, **given: Any) -> None:
    """Show which hosts obey a freeze."""
    with connected(given) as calls, if_missing(HINT):
        freeze = calls.ask("GET", path_to("freezes", freeze_id))
    if json_wanted:
        show_json(receipts.objects(freeze["servers"]))
        return
    receipts.show(freeze["servers"])
    say(freeze["words"])


@command.command()
@click.argument("freeze_id", metavar="ID", type=ID)
@changing
@connection_options
def end(freeze_id: int, dry_run: bool, json_wanted: bool, **given: Any) -> None:
    """End a freeze: keys that nobody confirmed can open sessions again."""
    with connected(given) as calls, if_missing(HINT):
        path, words = path_to("freezes", freeze_id), f"Freeze {freeze_id} is over."
        changed(calls, "DELETE", path, dry_run=dry_run, json_wanted=json_wanted, words=lambda _: words)
