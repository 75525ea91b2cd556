"""Command groups that load a command only when it is called; must know no command itself."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Mapping
from typing import Any

import click
from click.exceptions import NoSuchCommand
from click.shell_completion import CompletionItem

from keyrack.cli.examples import with_example

Commands = Mapping[str, tuple[str, str]]
"""By name: where a command is, as `module:attribute`, and its help in a line."""


MOST_NAMED = 20
"""Of more commands the help tells, which click names with the error."""


class LazyGroup(click.Group):
    """A group whose help and completion load none of its commands.

    known: its commands, in the order of its help. former: names that they had before, which no help shows.
    """

    def __init__(
        self, *given: Any, known: Commands | None = None, former: Mapping[str, str] | None = None, **named: Any
    ) -> None:
        super().__init__(*given, **named)
        self.known: Commands = known or {}
        self._former = former or {}

    def list_commands(self, context: click.Context) -> list[str]:
        """The names, in the order they were given in."""
        return list(self.known)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Load a command."""
        if name in self._former:
            command = copy.copy(self.get_command(context, self._former[name]))
            assert command is not None
            command.hidden = True
            return command
        if name not in self.known:
            return None
        # The path as it is typed, without the program's name.
        return with_example(_loaded(self.known[name][0]), " ".join((*context.command_path.split()[1:], name)))

    def shell_complete(self, context: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands that begin so, without loading any."""
        matching = [
            CompletionItem(name, help=text) for name, (_, text) in self.known.items() if name.startswith(incomplete)
        ]
        return [*matching, *click.Command.shell_complete(self, context, incomplete)]

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without loading any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self.known.items()])


def meant(error: NoSuchCommand) -> str:
    """Which command of its group was meant, or else which there are, if they fit a line or two; "" where click says."""
    group = error.ctx.command if error.ctx else None
    if error.possibilities or error.ctx is None or not isinstance(group, click.Group):
        return ""
    from difflib import get_close_matches  # loaded for a wrong word alone

    names = group.list_commands(error.ctx)
    near = get_close_matches(error.command_name, names, cutoff=0.7)
    if near:
        return f" Did you mean {' or '.join(map(repr, near))}?"
    return f" There are: {', '.join(names)}." if len(names) <= MOST_NAMED else ""


def _loaded(where: str) -> click.Command:
    module, _, attribute = where.partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    return command
