"""`keyrack export`: a workspace as the file that `keyrack apply` reads; must hold no rule, the core has them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from keyrack.cli.connection.opened import workspace_named
from keyrack.cli.connection.operator_context import operator_context, shared
from keyrack.cli.output.shown import say
from keyrack.core.workspace import export as workspace_export


@click.command(name="export")
@click.option(
    "--output",
    "file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write to FILE instead of standard output.",
)
@shared
def command(file: Path | None, **given: Any) -> None:
    """Write a workspace to a file that `keyrack apply` reads, without secrets.

    It holds the ids of servers, so that apply recognises one that was renamed or moved; a new instance gives its
    servers the same ids.
    """
    name = given["workspace"]
    with operator_context(given) as at:
        text = workspace_export.export(at.instance, at.actor, workspace_named(at.instance, name))
    if file is None:
        click.echo(text, nl=False)
        return
    new = file.with_name(f"{file.name}.new")
    try:
        new.write_text(text, "utf-8")
        os.replace(new, file)
    except OSError as error:
        raise click.ClickException(f"{file} cannot be written: {error.strerror}.") from None
    say(f"Wrote {file}.", err=True)
