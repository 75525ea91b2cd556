"""What others wrote, as the `keyrack` command shows it on a terminal and in its log; must be the only way there."""

from __future__ import annotations

import copy
import logging

import click

from keyrack.ssh.printable import printable


def say(line: str, *, err: bool = False) -> None:
    """One line, whatever hosts and callers put into it: no escape sequence acts, and no line is forged."""
    click.echo(printable(line), err=err)


class LogLines(logging.Formatter):
    """Log lines whose text can forge no other line and send a terminal nothing; a traceback's lines are set in."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        shown = copy.copy(record)
        shown.msg, shown.args = printable(record.getMessage()), None
        first, *others = super().format(shown).split("\n")
        return "\n  ".join((first, *map(printable, others)))
