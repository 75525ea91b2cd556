"""`keyrack who-can` and `keyrack access`: who can log in where, and what opens it; must hold no rule."""

from __future__ import annotations

import json
from typing import Any

import click

from keyrack.cli.connection.calls import PAGE_SIZE, CallRefused, connected, connection_options, if_missing
from keyrack.cli.output.ends import partly
from keyrack.cli.output.shown import say
from keyrack.cli.output.tables import NOTHING, as_json, dash, table

TITLES = (
    "USER",
    "SYSTEM USER",
    "SERVER",
    "VIA",
    "FINGERPRINT",
    "RESTRICTIONS",
    "EXPIRES AT",
    "LAST USED AT",
    "REFUSED",
)


_ACCOUNTS = "`keyrack who-can SERVER` shows all of them."
_NOBODY = "Nobody can log in there, as far as Keyrack knows."
_NOWHERE = "Nothing is open: it takes an SSH key and a grant, or a key on a server."


@click.command(name="who-can")
@click.argument("server", metavar="SERVER")
@click.argument("system_user", metavar="[SYSTEM_USER]", required=False)
@as_json
@connection_options
def command(server: str, system_user: str | None, json_wanted: bool, **given: Any) -> None:
    """Show who can log in to a server, as one system user or any, and how: keyrack who-can web-1 deploy"""
    _show(given, json_wanted, server=server, system_user=system_user)


@click.command(name="access")
@click.argument("user", metavar="[USER]", required=False)
@as_json
@connection_options
def of_user(user: str | None, json_wanted: bool, **given: Any) -> None:
    """Show where a user, or you yourself, can log in, and what lets them in: keyrack access alice"""
    if user == "":
        raise click.UsageError("USER is empty; leave it out for yourself.")
    _show(given, json_wanted, user=user)


def _show(given: dict[str, Any], json_wanted: bool, **asked: str | None) -> None:
    hint = "`keyrack servers list` and `keyrack people list` show what there is."
    with connected(given) as calls, if_missing(hint):
        if not any(asked.values()):
            asked["user"] = calls.ask("GET", "/people/me")["name"]
        rows: list[tuple[object, ...]] = []
        unknown: list[str] = []
        cursor: str | None = ""
        note: str | None = None
        while cursor is not None:
            page = calls.ask("GET", "/access", query={**asked, "cursor": cursor, "per_page": PAGE_SIZE})
            note = note or page["note"]
            if page["note"] and asked.get("system_user"):
                # Who misspelt an account must not read that nobody gets in there.
                raise CallRefused(404, "account-missing", page["note"]).with_advice(_ACCOUNTS)
            rows += map(_row, page["items"])
            unknown += page["unknown"]
            cursor = page["next"]
        table(TITLES, rows, json_wanted)
        if not rows and not unknown:
            say(note or (_NOBODY if asked.get("server") else _NOWHERE), err=True)
        for name in unknown:
            say(f"Nothing can be said of server {name}: its rows are not as Keyrack wrote them.", err=True)
        if unknown:
            raise partly()


def _row(way: dict[str, Any]) -> tuple[object, ...]:
    return (
        dash(way["user"]),
        way["system_user"],
        way["server"],
        _via(way["via"]),
        way["fingerprint"],
        json.dumps(way["restrictions"]) if way["restrictions"] else NOTHING,
        dash(way["expires_at"]),
        dash(way["last_used_at"]),
        dash(way["refused"] or None),
    )


def _via(via: dict[str, Any]) -> str:
    break_glass = ", break-glass" if via["break_glass"] else ""
    if via["kind"] == "credential":
        return f"SSH key {via['label']} ({via['id']}){break_glass}"
    through = f" to group {via['group']}" if via["group"] else ""
    place = f", tag {via['tag']}" if via["tag"] else ", all servers" if via["all"] else ""
    why = f": {via['reason']}" if via["reason"] else ""
    return f"grant {via['id']}{through}{place}{break_glass}{why}"
