"""Prints text that others wrote, with control characters escaped; every such text must go through here."""

from __future__ import annotations

import click

from keyrack.ssh.printable import printable


def say(line: str, *, err: bool = False) -> None:
    """One line, whatever hosts and callers put into it: no escape sequence acts, and no line is forged."""
    click.echo(printable(line), err=err)
