"""The opened instance, the workspace that is meant and who acts, for an operator's commands; must hold no rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from keyrack.cli import options
from keyrack.cli.connection.opened import opened, workspace_named
from keyrack.cli.connection.operator import operator
from keyrack.core.instance import Instance
from keyrack.core.people import actors
from keyrack.errors import Kind, Refusal
from keyrack.model import Actor, Server

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class OperatorContext:
    """The opened instance and who acts on it."""

    instance: Instance
    actor: Actor

    def server(self, reference: str) -> Server:
        """The server that is meant; exits with words when there is none."""
        # Loaded only here, as most commands name no server.
        from keyrack.core.hosts import servers

        try:
            return servers.named(self.instance, self.actor, reference)
        except Refusal as refusal:
            if refusal.kind is not Kind.MISSING:
                raise
            raise click.ClickException(
                f"There is no server {reference!r}; `keyrack hosts list` shows which there are."
            ) from None


def shared(function: F) -> F:
    """The options that every command of this group takes."""
    workspace = click.option("--workspace", metavar="NAME", help="The workspace; needed if there are several.")
    return workspace(options.data(options.database(function)))


@contextmanager
def operator_context(given: dict[str, Any], *, or_logged_in: bool = False) -> Iterator[OperatorContext]:
    """Open the instance and act as whoever runs this, in the workspace that is meant. or_logged_in: see opened."""
    name = given.pop("workspace")
    with opened(given, or_logged_in=or_logged_in) as instance:
        yield OperatorContext(
            instance, actors.system_actor(workspace_named(instance, name).id, channel="cli", like=operator())
        )
