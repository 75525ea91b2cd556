"""`keyrack who-can` and `keyrack access`: who can log in where, and what opens it; must hold no rule."""

from __future__ import annotations

import json
from typing import Any

import click

from keyrack.cli.operator_context import known_id, operator_context, shared
from keyrack.cli.shown import say
from keyrack.cli.spans import moment
from keyrack.cli.tables import AT_ONCE, as_json, table
from keyrack.core.keys import who_can
from keyrack.core.keys.who_can import Way

TITLES = ("USER", "SYSTEM USER", "SERVER", "VIA", "FINGERPRINT", "RESTRICTIONS", "EXPIRES AT", "LAST USED AT")


@click.command(name="who-can")
@click.argument("server", metavar="SERVER")
@click.argument("system_user", metavar="[SYSTEM_USER]", required=False)
@as_json
@shared
def command(server: str, system_user: str | None, json_wanted: bool, **given: Any) -> None:
    """Who can log in on a server, as one system user or as any, and what opens it: keyrack who-can web-1 deploy"""
    _show(given, json_wanted, server=server, system_user=system_user)


@click.command(name="access")
@click.argument("user", metavar="USER")
@as_json
@shared
def of_user(user: str, json_wanted: bool, **given: Any) -> None:
    """Where a user can log in, and what opens it: keyrack access alice"""
    _show(given, json_wanted, user=user)


def _show(given: dict[str, Any], json_wanted: bool, **asked: str | None) -> None:
    with operator_context(given) as at, known_id("`keyrack hosts list` and `keyrack people list` show what there is."):
        found: list[Way] = []
        unknown: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            page = who_can.find(at.instance, at.actor, **asked, cursor=cursor, limit=AT_ONCE)
            found += page.items
            unknown += page.unknown
            cursor = page.next
        table(TITLES, [_row(way) for way in found], json_wanted)
        for name in unknown:
            say(f"Nothing can be said of server {name}: its rows are not as Keyrack wrote them.", err=True)
        if unknown:
            raise SystemExit(3)


def _row(way: Way) -> tuple[object, ...]:
    opened_by = way.line.credential or way.line.grant
    limits = json.dumps(dict(opened_by.restrictions)) if opened_by and opened_by.restrictions else "-"
    return (
        way.user or "-",
        way.line.username,
        way.server.name,
        _via(way),
        way.line.fingerprint,
        limits,
        moment(way.line.expires_at),
        moment(way.last_used_at),
    )


def _via(way: Way) -> str:
    credential, grant = way.line.credential, way.line.grant
    if credential is not None:
        return f"SSH key {credential.label} ({credential.id})"
    assert grant is not None
    through = f" to group {way.group}" if way.group else ""
    place = f", tag {grant.tag}" if grant.tag else ", all servers" if grant.all_servers else ""
    return f"grant {grant.id}{through}{place}"
