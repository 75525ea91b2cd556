"""`keyrack hosts enrol`: the line that enrols a host; must hold no rule."""

from __future__ import annotations

from typing import Any

import click

from keyrack.cli import options
from keyrack.cli.changes import tell
from keyrack.cli.connection.calls import connected, connection_options, if_missing, is_on_data, path_to
from keyrack.cli.output.tables import as_json_object


@click.command(name="enrol")
@click.argument("reference", metavar="SERVER")
@click.option("--replace", is_flag=True, help="The machine is a host already, or a copy of one: enrol it as this one.")
@options.public_url
@as_json_object
@connection_options
def command(reference: str, replace: bool, public_url: str | None, json_wanted: bool, **given: Any) -> None:
    """Print the line that enrols a host.

    Root pastes it there; its token works once, within 24 hours.

    The line names the service's address; with --data, give --public-url or set it where `keyrack serve` reads it.
    """
    if public_url is not None:
        if not is_on_data(given):
            raise click.UsageError("--public-url goes with --data; the service you are logged in to knows its address.")
        given["public_url"] = public_url
    with connected(given) as calls, if_missing("`keyrack hosts list` shows which there are."):
        made = calls.ask("POST", path_to("servers", reference, "enrolments"), {"replace": replace})
        tell(made, made["line"], json_wanted)
