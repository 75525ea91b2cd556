"""`keyrack agent …`: the same program as the single file served to hosts; must add nothing to it."""

from __future__ import annotations

import sys

import click

from keyrack.agent import cli


@click.command(name="agent", context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> None:
    """The program that runs on a host."""
    sys.exit(cli.main(list(arguments)))
