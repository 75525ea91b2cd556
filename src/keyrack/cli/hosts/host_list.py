"""`keyrack hosts list`: hosts with their modes and states; must load nothing of other commands, nor hold a rule."""

from __future__ import annotations

import importlib
from datetime import datetime
from typing import Any

import click

from keyrack.cli.connection.calls import CallRefused, Calls, connected, connection_options, is_on_data
from keyrack.cli.output.spans import ago
from keyrack.cli.output.tables import as_json, dash, table

FORBIDDEN = 403
TITLES = ("ID", "NAME", "MODE", "STATE", "APPLIED", "SEEN", "UNMANAGED")


@click.command(name="list")
@click.option("--deleted", is_flag=True, help="Deleted servers instead, and whether their hosts have obeyed that.")
@as_json
@connection_options
def list_hosts(deleted: bool, json_wanted: bool, **given: Any) -> None:
    """List hosts, each with its mode and state.

    APPLIED is the revision that the host obeys / the one that it must obey; UNMANAGED counts the keys that Keyrack did
    not put there and on which nobody has decided, if you may see that.
    """
    if is_on_data(given) and not deleted:
        # Read from the records: with ten thousand servers, making an API answer of each would cost time for nothing.
        table(TITLES, importlib.import_module("keyrack.cli.hosts.hosts_on_data").rows(given), json_wanted)
        return
    with connected(given) as calls:
        if deleted:
            gone = [
                (
                    *(server[name] for name in ("id", "name", "address", "deleted_at", "deleted_by")),
                    dash(server["acknowledged_at"]),
                )
                for server in calls.every("/deleted-servers")
            ]
            table(("ID", "NAME", "ADDRESS", "DELETED", "BY", "OBEYED"), gone, json_wanted)
            return
        undecided = _undecided(calls)
        now, unknown = calls.now(), None if json_wanted else "-"
        rows = [
            (
                server["id"],
                server["name"],
                server["mode"],
                server["state"],
                f"{server['applied']}/{server['wanted']}",
                ago(now, server["seen_at"] and datetime.fromisoformat(server["seen_at"])),
                unknown if undecided is None else undecided.get(server["id"], 0),
            )
            for server in calls.every("/servers")
        ]
        table(TITLES, rows, json_wanted)


def _undecided(calls: Calls) -> dict[int, int] | None:
    """How many unmanaged keys wait for a decision, by server; None if the caller may not see that."""
    try:
        items = calls.ask("GET", "/unmanaged-keys")["items"]
    except CallRefused as refused:
        if refused.status != FORBIDDEN:
            raise
        return None
    return {item["server_id"]: item["keys"] for item in items}
