"""Exit statuses of commands, other than 0, each with its meaning; must print nothing by itself."""

from __future__ import annotations

import click

REFUSED = 1
PARTLY = 3
UNREACHABLE = 4


class Unreachable(click.ClickException):
    """The service, or the database, gave no answer."""

    exit_code = UNREACHABLE


def partly() -> click.exceptions.Exit:
    """The end of a command that did what it could, which was not all."""
    return click.exceptions.Exit(PARTLY)
