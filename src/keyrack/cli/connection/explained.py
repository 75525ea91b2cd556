"""What can go wrong when an instance is opened, in words for an operator; must load nothing that serves."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import click
from sqlalchemy.exc import ProgrammingError

from keyrack.cli.output.ends import Unreachable
from keyrack.store.database import DatabaseUnavailable
from keyrack.store.engine.connect import UNAVAILABLE, DatabaseAltered, DatabaseRefused, DatabaseUnusable, is_locked
from keyrack.store.engine.migrate import SchemaTooNew

_CHECK_FOLDER = "Check the data folder: its permissions, and its disk's space and health"


def unanswered(error: DatabaseUnavailable) -> Unreachable:
    """The exit of a command whose database stopped answering after it was opened, with what to check."""
    if _is_of_a_file(error) and str(error).startswith(UNAVAILABLE):
        return Unreachable(f"{str(error).rstrip('.')}. {_CHECK_FOLDER}.")
    return Unreachable(str(error))


def _is_of_a_file(error: DatabaseUnavailable) -> bool:
    cause = getattr(error.__cause__, "orig", error.__cause__)
    return isinstance(cause, sqlite3.Error) and not is_locked(cause)


@contextmanager
def explained() -> Iterator[None]:
    """Turn what can go wrong when an instance is opened into words and an exit."""
    try:
        yield
    except (DatabaseAltered, DatabaseUnusable, DatabaseRefused) as error:
        raise click.ClickException(str(error)) from None
    except DatabaseUnavailable as error:
        why = str(error).removeprefix(UNAVAILABLE).rstrip(".")
        what = _CHECK_FOLDER if _is_of_a_file(error) else "Start it"
        raise Unreachable(f"The database cannot be reached: {why}. {what}, or check --database.") from None
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) is not None or isinstance(error.orig, sqlite3.Error):
            raise
        # What the driver says before it asked any server.
        why = str(error.orig).strip().partition("\n")[0]
        raise click.ClickException(f"The database address cannot be used: {why}. Check --database.") from None
    except (SchemaTooNew, ValueError) as error:
        raise click.ClickException(str(error)) from None
    except PermissionError as error:
        raise click.ClickException(f"No permission for {error.filename}; choose another --data.") from None
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}. Fix that, or choose another --data.") from None
