"""`keyrack apply`: brings a workspace to what a file says; must hold no rule, the core has them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from keyrack.cli import options
from keyrack.cli.connection.opened import opened
from keyrack.cli.connection.operator import operator
from keyrack.cli.files import text_of
from keyrack.cli.output.shown import say
from keyrack.cli.output.tables import as_json_object, show_json
from keyrack.core.workspace import apply as workspace_apply
from keyrack.core.workspace import schema
from keyrack.protocol.words import count


def _schema(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(json.dumps(schema.json_schema(), indent=2))
        context.exit()


@click.command(name="apply")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--check", is_flag=True, help="Like --dry-run, and end with status 1 if something would change.")
@click.option("--prune", is_flag=True, help="Also remove what FILE leaves out of what it declares.")
@click.option("--reset-secrets", is_flag=True, help="Also reset passwords that were changed since.")
@as_json_object
@click.option(
    "--schema", is_flag=True, expose_value=False, is_eager=True, callback=_schema, help="Print the JSON schema of FILE."
)
@options.new_database
@options.data
@options.database
def command(
    file: Path,
    dry_run: bool,
    check: bool,
    prune: bool,
    reset_secrets: bool,
    json_wanted: bool,
    new_database: bool,
    **given: Any,
) -> None:
    """Change a workspace to match FILE (TOML); running it again changes nothing.

    Each change is shown first, and all of them are made together or not at all. What FILE leaves out is named and
    stays, unless --prune is given.

    It may run beside the service. Secrets can come from the environment: password_env = "NAME".
    """
    text = text_of(file, otherwise="It takes a workspace file.")
    with opened(given, creating=True, new_database=new_database) as instance:
        left: list[str] = []
        noted: list[str] = []
        changes = workspace_apply.apply(
            instance,
            text,
            os.environ,
            _nothing if json_wanted else say,
            left=left.append,
            noted=noted.append,
            prune=prune,
            reset_secrets=reset_secrets,
            dry_run=dry_run or check,
            actor=operator("apply"),
        )
    made = not (dry_run or check)
    if json_wanted:
        show_json({"changes": changes, "made": made, "left": left, "noted": noted})
    else:
        _tell(changes, left, noted, made=made)
    if check and (changes or left):
        raise SystemExit(1)


def _nothing(words: str) -> None:
    """With --json the changes are printed at the end, as one object."""


def _tell(changes: list[str], left: list[str], noted: list[str], *, made: bool) -> None:
    for words in left:
        say(f"left as it is, without --prune: {words}")
    for words in noted:
        say(f"left as it is: {words}")
    if changes:
        many = count(len(changes), "change")
        say(f"{many}." if made else f"{many} would be made; none was.")
    elif left:
        say(f"Nothing changed; with --prune: {count(len(left), 'removal')}.")
    else:
        say("Nothing to change.")
