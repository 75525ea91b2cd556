"""`keyrack tidy`: shows old data that need not be kept any longer, and deletes it; must hold no rule."""

from __future__ import annotations

from typing import Any

import click

from keyrack.cli import options
from keyrack.cli.connection.opened import opened
from keyrack.cli.output.spans import moment
from keyrack.cli.output.tables import as_json, table
from keyrack.core.audit import retention
from keyrack.core.people.actors import system_actor


@click.command(name="tidy")
@click.option("--apply", "applied", is_flag=True, help="Delete it; otherwise show only how much there is.")
@as_json
@options.data
@options.database
def command(applied: bool, json_wanted: bool, **given: Any) -> None:
    """Show old data that need not be kept any longer, and delete it.

    The service deletes it by itself, every hour. The settings that end in _days say how long each kind is kept.
    """
    with opened(given) as instance:
        actor = system_actor(channel="cli")
        due = list(retention.due(instance, actor))
        if json_wanted:
            rows = [(one.rows, one.kind, moment(one.before)) for one in due]
            table(("ROWS", "KIND", "ENDED BEFORE"), rows, json_wanted)
        else:
            for one in due:
                click.echo(f"{one.rows:>9}  {one.kind}, ended before {one.before:%Y-%m-%d %H:%M} UTC")
        if not applied:
            click.echo("Nothing was deleted; --apply does.", err=json_wanted)
            return
        total = 0
        while gone := retention.tidy(instance, actor):
            total += gone.total()
        click.echo(f"Deleted {total}.", err=json_wanted)
