"""An opened instance and the workspace that an operator means, for commands in process; must decide nothing more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from keyrack.app import open_instance
from keyrack.cli import options
from keyrack.cli.serve import explained
from keyrack.core.instance import Instance
from keyrack.errors import Refusal
from keyrack.model import Workspace
from keyrack.store import people
from keyrack.store.database import DatabaseUnavailable


@contextmanager
def opened(given: dict[str, Any], *, new_database: bool = False) -> Iterator[Instance]:
    """The instance that the options name; refusals become words and an exit. new_database: see open_instance."""
    settings = options.settings(**given)
    with explained():
        instance = open_instance(settings, new_database=new_database)
    try:
        yield instance
    except Refusal as refusal:
        raise click.ClickException(refusal.message) from None
    except DatabaseUnavailable as error:
        raise click.ClickException(f"The database cannot be reached: {error}") from None
    finally:
        instance.database.close()


def workspaces(instance: Instance) -> tuple[Workspace, ...]:
    """All workspaces by name."""
    return instance.database.read(people.workspaces_by_name)


def workspace_named(instance: Instance, name: str | None) -> Workspace:
    """The workspace of that name, or the only one there is; exits with words otherwise."""
    known = workspaces(instance)
    if name is None and len(known) == 1:
        return known[0]
    for workspace in known:
        if workspace.name == name:
            return workspace
    if not known:
        raise click.ClickException("There is no workspace yet; make one with `keyrack apply` or `keyrack up`.")
    names = ", ".join(workspace.name for workspace in known)
    raise click.UsageError(f"Say whose it is with --workspace; there are: {names}.")
