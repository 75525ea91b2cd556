"""`keyrack audit`: the audit log, page by page as it is read, however long it is; must hold no rule."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from keyrack.cli.audit_proof import export_command, verify_command
from keyrack.cli.changes import moment, tell
from keyrack.cli.connection.calls import PAGE_SIZE, Calls, connected, connection_options, if_missing
from keyrack.cli.output.shown import say
from keyrack.cli.output.spans import before_now
from keyrack.cli.output.tables import NOTHING, as_json, as_json_object, dash, table

_HINT = "`keyrack servers list` and `keyrack hosts list --deleted` show which there are."


@click.group(name="audit")
def command() -> None:
    """The audit log: who did what, from where, and what was refused."""


@command.command(name="list")
@click.option(
    "--since",
    metavar="TIME",
    help="Since a time such as 2026-11-22T16:00:00Z, or a day in UTC, or 12h for the last 12 hours.",
)
@click.option("--until", metavar="TIME", help="Before that time, or up to the end of that day.")
@click.option("--person", metavar="NAME", help="What this user did.")
@click.option(
    "--host", metavar="SERVER", help="What concerned this server (name or id), also through a tag or a group."
)
@click.option("--key", metavar="FINGERPRINT", help="What was done with a key.")
@click.option(
    "--kind",
    metavar="KIND",
    help="What was about keys, access, hosts, people, sessions, tokens, repositories, workspace; or refused, or alarm.",
)
@click.option("--search", metavar="TEXT", help="Only what contains TEXT, in upper or lower case.")
@click.option("--limit", type=click.IntRange(min=1), help="How many at most; otherwise all.")
@as_json
@connection_options
def list_audit(
    since: str | None,
    until: str | None,
    person: str | None,
    host: str | None,
    key: str | None,
    kind: str | None,
    search: str | None,
    limit: int | None,
    json_wanted: bool,
    **given: Any,
) -> None:
    """List the whole audit log, newest first; each page is shown before the next is fetched."""
    for option, text in (("person", person), ("host", host), ("key", key), ("kind", kind), ("search", search)):
        # An empty one would find all there is.
        if text == "":
            raise click.UsageError(f"--{option} is empty; leave it out for all.")
    asked = {
        "from": None if since is None else _since(since),
        "to": None if until is None else moment("--until", until, end=True),
        "person": person,
        "server": host,
        "key": key,
        "kind": kind,
        "search": search,
    }
    with connected(given) as calls, if_missing(_HINT):
        events = _events(calls, asked, limit)
        if json_wanted:
            _stream(events)
            return
        any_event = any_receipts = False
        for one in events:
            any_event = True
            has_receipts = one.get("receipts", False)  # an older service does not say
            any_receipts |= has_receipts
            marked = " (receipts)" if has_receipts else ""
            say(f"{one['id']:>8}  {one['at']}  {dash(one['actor'])}  {one['summary']}{marked}")
        if any_receipts:
            say("`keyrack hosts receipts ID` shows which hosts obey what is marked (receipts).", err=True)
        if not any_event:
            said = f" --person finds what {person} did; what was done to {person}: --search {person}." if person else ""
            say(f"No event matches.{said}", err=True)


def _since(text: str) -> str:
    """A time or a day as --since takes it, or a span up to now."""
    began = before_now(text)
    return moment("--since", text) if began is None else began.isoformat()


def _events(calls: Calls, asked: dict[str, Any], limit: int | None) -> Iterator[dict[str, Any]]:
    """The events asked for; each page goes on behind the last event of the one before, whatever came meanwhile."""
    cursor: str | None = ""
    left = limit
    while cursor is not None and (left is None or left > 0):
        piece = PAGE_SIZE if left is None else min(PAGE_SIZE, left)
        page = calls.ask("GET", "/events", query={**asked, "cursor": cursor, "per_page": piece})
        yield from page["items"]
        cursor = page["next"]
        left = None if left is None else left - len(page["items"])


def _stream(events: Iterator[dict[str, Any]]) -> None:
    """A JSON list, an event in each line, written as it comes."""
    mark = "["
    for one in events:
        click.echo(f"{mark}\n{json.dumps(one)}", nl=False)
        mark = ","
    click.echo("[]" if mark == "[" else "\n]")


@command.command(name="alarms")
@as_json
@connection_options
def list_alarms(json_wanted: bool, **given: Any) -> None:
    """List the alarms that stand, with what settles each, and those settled within the last day."""
    with connected(given) as calls:
        answer = calls.ask("GET", "/alarms")
    rows = [
        (dash(one["event"]), dash(one["since"]), _standing(one), one["words"], one["way_out"])
        for one in answer["items"]
    ]
    rows += [
        (NOTHING, NOTHING, "stands", f"{one['server']}: {one['words']}", "Fix it on the host.")
        for one in answer["saying"]
    ]
    if json_wanted or not rows:
        table(("EVENT", "SINCE", "STATE", "WORDS", "WAY OUT"), rows, json_wanted)
    else:
        for event, since, state, words, way_out in rows:
            say(f"{event:>8}  {since}  {state}: {words}")
            if state == "stands":
                say(f"          {way_out}")
    for words in answer["bounds"]:
        click.echo(words, err=True)


def _standing(one: dict[str, Any]) -> str:
    if not one["settled"]:
        return "stands"
    return f"settled by {one['settled_by']}" if one["settled_by"] else "settled"


@command.command(name="settle")
@click.argument("event", metavar="EVENT", type=click.IntRange(min=1))
@as_json_object
@connection_options
def settle_alarm(event: int, json_wanted: bool, **given: Any) -> None:
    """Settle an alarm whose end Keyrack cannot see, such as the use of a break-glass key.

    EVENT is the id that `keyrack audit alarms` shows. If it is raised again, it is an alarm again.
    """
    with connected(given) as calls, if_missing("`keyrack audit alarms` shows which there are."):
        answer = calls.ask("POST", f"/alarms/{event}/settle")
    tell(answer, f"Settled: {answer['words']}", json_wanted)


command.add_command(verify_command)
command.add_command(export_command)
