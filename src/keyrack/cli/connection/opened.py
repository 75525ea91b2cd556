"""An opened instance and the workspace that an operator means, for commands in process; must decide nothing more."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from keyrack.app import open_instance
from keyrack.cli import options
from keyrack.cli.connection.explained import explained, unanswered
from keyrack.core.instance import Instance
from keyrack.core.ownership import check_database
from keyrack.errors import Refusal
from keyrack.model import Workspace
from keyrack.settings import Settings
from keyrack.store.database import DatabaseUnavailable
from keyrack.store.engine import migrate
from keyrack.store.engine.connect import DatabaseAltered, parse_url
from keyrack.store.people import workspaces as workspace_rows


@contextmanager
def opened(
    given: dict[str, Any], *, creating: bool = False, new_database: bool = False, or_logged_in: bool = False
) -> Iterator[Instance]:
    """The instance that the options name; refusals become words and an exit. new_database: see open_instance.

    creating: make one where there is none. Otherwise a mistyped --data would leave a new key and an empty database.
    or_logged_in: the command goes where one logged in, if nothing says where data are.
    """
    settings = options.settings(**given)
    with explained():
        at = None if creating else refuse_none(settings, given, or_logged_in=or_logged_in)
        instance = open_instance(settings, new_database=new_database, at=at)
    try:
        yield instance
    except Refusal as refusal:
        raise click.ClickException(refusal.message) from None
    except DatabaseAltered as error:
        raise click.ClickException(str(error)) from None
    except DatabaseUnavailable as error:
        raise unanswered(error) from None
    finally:
        instance.database.close()


def refuse_none(settings: Settings, given: Mapping[str, Any], *, or_logged_in: bool = False) -> str | None:
    """Exit with words where there is no instance yet. The revision that its database is at, None where its key is not
    there. given, or_logged_in: see opened. Raises as open_instance does.
    """
    # A key without its database is an instance that lost it, which has words of its own.
    at = check_database(settings.database_url, settings.data / "instance.key")
    dialect, url = parse_url(settings.database_url)
    where = str(url.database) if dialect == "sqlite" else url.render_as_string()
    if (dialect == "sqlite" and not Path(where).exists()) or not (at or migrate.current(settings.database_url)):
        named = _named_by(given)
        otherwise = ", and not where `keyrack login` logged in"
        if or_logged_in:
            without = f"without {named}" if named else f"from a folder that has no {settings.data}"
            otherwise = f"; {without} it goes where `keyrack login` logged in"
        raise click.ClickException(
            f"There is no instance of Keyrack at {where}, {f'which {named} names' if named else 'the usual place'}. "
            f"This command works on the data there, where the service runs{otherwise}. "
            "`keyrack apply`, `serve` or `up` makes an instance."
        )
    return at


def _named_by(given: Mapping[str, Any]) -> str:
    """The option or the setting that says where the data are; empty where none does."""
    for name in ("database", "data"):
        if given.get(name) is not None:
            return f"--{name}"
    for name in ("KEYRACK_DATABASE", "KEYRACK_DATA"):
        if os.environ.get(name):
            return name
    return ""


def workspaces(instance: Instance) -> tuple[Workspace, ...]:
    """All workspaces by name."""
    return instance.database.read(workspace_rows.workspaces_by_name)


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
    if name is None:
        raise click.UsageError(f"Say whose it is with --workspace; there are: {names}.")
    raise click.ClickException(f"There is no workspace {name!r}; there are: {names}.")
