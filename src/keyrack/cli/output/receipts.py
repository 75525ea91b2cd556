"""How far a change has come, server by server, as commands show it; must ask for nothing by itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from keyrack.cli.output.tables import table


def state(one: Mapping[str, Any]) -> str:
    """Since when a host obeys, or why that cannot be said; one: a receipt as the API has it."""
    if not one["host"]:
        return "no host"
    if not one["done"]:
        return "not yet"
    return f"{one['acknowledged_at']} or earlier" if one.get("at_latest") else str(one["acknowledged_at"])


def show(servers: Iterable[Mapping[str, Any]]) -> None:
    """The receipts as a table."""
    rows = [(one["server_name"], one["wanted"], one["applied"], state(one)) for one in servers]
    table(("SERVER", "WANTED", "APPLIED", "ACKNOWLEDGED"), rows)


def objects(servers: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The receipts as JSON has them; acknowledged_at: null until the host obeys."""
    return [
        {
            "server": one["server_name"],
            "wanted": one["wanted"],
            "applied": one["applied"],
            "done": one["done"],
            "acknowledged_at": one["acknowledged_at"] if one["done"] else None,
            "at_latest": one["at_latest"],
            "host": one["host"],
        }
        for one in servers
    ]
