"""What others wrote, as the `keyrack` command shows it on a terminal and in its log; must be the only way there."""

from __future__ import annotations

import click

from keyrack.ssh.printable import printable


def say(line: str, *, err: bool = False) -> None:
    """One line, whatever hosts and callers put into it: no escape sequence acts, and no line is forged."""
    click.echo(printable(line), err=err)
