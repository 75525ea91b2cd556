"""`keyrack keys find` and `keyrack keys confirm`: keys that should go, and those that stay; must hold no rule."""

from __future__ import annotations

from typing import Any

import click

from keyrack.cli.changes import changed, changing
from keyrack.cli.connection.calls import ID, PAGE_SIZE, connected, connection_options, if_missing, path_to
from keyrack.cli.output.tables import as_json, dash, table

KINDS = ("weak", "old", "unused", "unowned")
TITLES = ("WHAT", "KIND", "ID", "NAME", "USER", "SERVER", "AS", "FINGERPRINT", "LAST USED", "WHY")


@click.command(name="find")
@click.option("--weak", is_flag=True, help="Keys that today's rules would refuse.")
@click.option("--old", is_flag=True, help="Keys entered more than --old-days ago.")
@click.option("--unused", is_flag=True, help="Keys without a login for --unused-days.")
@click.option("--unowned", is_flag=True, help="Keys that no user who may log in has registered.")
@click.option("--old-days", type=click.IntRange(1, 36_500), default=365, metavar="DAYS", help="For --old. [365]")
@click.option("--unused-days", type=click.IntRange(1, 36_500), default=90, metavar="DAYS", help="For --unused. [90]")
@as_json
@connection_options
def find(old_days: int, unused_days: int, json_wanted: bool, **given: Any) -> None:
    """Find keys that should go: of the kinds given, or of all."""
    kinds = [kind for kind in KINDS if given.pop(kind)]
    query: dict[str, Any] = {
        "kind": ",".join(kinds or KINDS),
        "old_days": old_days,
        "unused_days": unused_days,
        "per_page": PAGE_SIZE,
    }
    rows: list[tuple[object, ...]] = []
    with connected(given) as calls:
        while True:
            page = calls.ask("GET", "/keys/findings", query=query)
            rows += [_row(one) for one in page["items"]]
            if page["next"] is None:
                break
            query["cursor"] = page["next"]
    table(TITLES, rows, json_wanted)


def _row(one: dict[str, Any]) -> tuple[object, ...]:
    return (
        " ".join(one["findings"]),
        one["kind"],
        one["id"],
        dash(one["name"]),
        dash(one["user"]),
        dash(one["server"]),
        dash(one["username"]),
        one["fingerprint"],
        dash(one["last_used_at"]),
        one["words"],
    )


@click.command(name="confirm")
@click.argument("key_id", metavar="ID", type=ID)
@click.option("--credential", is_flag=True, help="ID is of a key on a server that no user registered.")
@changing
@connection_options
def confirm(key_id: int, credential: bool, dry_run: bool, json_wanted: bool, **given: Any) -> None:
    """Confirm a frozen key, so that it opens sessions again. `keyrack keys mine list` shows your own."""
    with connected(given) as calls, if_missing("`keyrack keys mine list` shows your own."):
        path, words = path_to("credentials" if credential else "keys", key_id, "confirm"), f"Confirmed key {key_id}."
        changed(calls, "POST", path, dry_run=dry_run, json_wanted=json_wanted, words=lambda _: words)
