"""`keyrack events`: the audit log, also reached as `keyrack hosts events`; must hold no rule."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Any

import click

from keyrack.cli.connection.operator_context import OperatorContext, operator_context, shared
from keyrack.cli.output.spans import before_now, moment
from keyrack.cli.output.tables import NOTHING, PAGE_SIZE, as_json, table
from keyrack.core.audit import events
from keyrack.errors import Refusal
from keyrack.model import Event, EventFilter


@click.command(name="events")
@click.argument("reference", metavar="[SERVER]", required=False)
@click.option("--from", "since", metavar="TIME", help="Such as 2026-11-22T16:00:00Z, or a day in UTC, or 12h.")
@click.option("--to", "until", metavar="TIME", help="Before that time, or up to the end of that day.")
@click.option("--search", default="", metavar="TEXT", help="Only what contains TEXT, in upper or lower case.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(min=0), help="How many at most; 0 for all.")
@as_json
@shared
def command(
    reference: str | None,
    since: str | None,
    until: str | None,
    search: str,
    limit: int,
    json_wanted: bool,
    **given: Any,
) -> None:
    """List the audit log, or a server's part of it, newest first.

    It reads the instance's own data. `keyrack audit list` also works where you are logged in, and filters by person,
    key and kind.
    """
    with operator_context(given) as at:
        asked = EventFilter(
            concerning=None if reference is None else at.server(reference).id,
            since=None if since is None else before_now(since) or _asked_moment("--from", since),
            until=None if until is None else _asked_moment("--to", until, end=True),
            search=search,
        )
        matching = _events(at, asked, limit)
        if json_wanted:
            click.echo(json.dumps([_event_json(one) for one in matching], indent=1))
            return
        rows = [(one.id, moment(one.at), one.actor_name or NOTHING, one.summary) for one in matching]
        table(("ID", "AT", "WHO", "WHAT"), rows)


def _asked_moment(option: str, text: str, *, end: bool = False) -> datetime:
    """The time that an option names, as core.audit.events.moment reads it; exits with words for anything else."""
    try:
        return events.moment(text, field=option, end=end)
    except Refusal as refusal:
        raise click.UsageError(refusal.message) from None


def _events(at: OperatorContext, asked: EventFilter, limit: int) -> Iterator[Event]:
    """The events asked for, newest first, at most so many; 0: all."""
    piece = PAGE_SIZE if limit == 0 else min(PAGE_SIZE, limit)
    matching = (one for page in events.every(at.instance, at.actor, asked, limit=piece) for one in page.items)
    yield from matching if limit == 0 else islice(matching, limit)


def _event_json(one: Event) -> dict[str, object]:
    return {
        "id": one.id,
        "at": moment(one.at),
        "actor": one.actor_name,
        "token": one.token_name,
        "address": one.address,
        "channel": one.channel,
        "action": one.action,
        "outcome": one.outcome,
        "reason": one.reason,
        "server_id": one.server_id,
        "summary": one.summary,
        "level": one.level,
        "receipts": one.has_receipts,
    }
