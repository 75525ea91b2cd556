"""A command's calls, over the API or on an instance's own data, alike; must know no command, nor load an instance."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import click

from keyrack.cli.connection import logins
from keyrack.cli.connection.transport import PAGE_SIZE, CallRefused, Calls, texts
from keyrack.cli.output.ends import Unreachable

F = TypeVar("F", bound=Callable[..., Any])


class _Id(click.IntRange):
    """The id of something, which has no name to be called by."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            words = f"a whole number in the range {self.min} to {self.max}, as `list` shows it in its first column"
            self.fail(f"{value!r} is no id: {words}.", param, ctx)


ID = _Id(1, 2**31 - 1)
FOLDER = Path("keyrack-data")


NEXT = {
    "server-missing": "`keyrack servers list` shows which there are.",
    "user-missing": "`keyrack people list` shows who there is.",
    "group-missing": "`keyrack groups list` shows which there are.",
    "account-missing": "`keyrack servers set SERVER --account ACCOUNT` adds it.",
    "token-missing": "`keyrack tokens list` shows which there are.",
    "repository-missing": "`keyrack repos list` shows which you may see.",
}
"""What to do next if something named is not there, by the refusal's code; a command may know better (if_missing)."""


def path_to(*pieces: object) -> str:
    """A path of texts, each as it is: `path_to("groups", name)`; exits with words for one that can name nothing."""
    for piece in map(str, pieces):
        # With an empty name the path would be that of another call, such as the list.
        if not piece:
            raise click.UsageError("An empty text names nothing; say which one is meant.")
        if "/" in piece:
            raise click.UsageError(
                f"{piece!r} holds a /, which no name in an address has; a server is found by its id."
            )
        if piece in (".", ".."):
            words = f"In an address {piece} is a folder, and names nothing; a server is found by its id."
            raise click.UsageError(words)
    return "/" + "/".join(quote(str(piece), safe="") for piece in pieces)


def connection_options(function: F) -> F:
    """The options of a command that goes over the API, or works on an instance's own data."""
    for option in (
        click.option(
            "--data",
            metavar="DIR",
            type=click.Path(path_type=Path, file_okay=False),
            help="Work on the instance's own data in DIR, as its operator; otherwise where you are logged in.",
        ),
        click.option("--database", metavar="URL", help="The same, with the database at URL."),
        click.option("--workspace", metavar="NAME", help="With --data: the workspace; needed if there are several."),
    ):
        function = option(function)
    return function


@contextmanager
def connected(given: dict[str, Any]) -> Iterator[Calls]:
    """Where the command goes: to the data where one names it or it is here, otherwise to where one logged in.

    given: what `connection_options` asked for. Exits with words where there is neither.
    """
    if not is_on_data(given):
        login = logins.current()
        if login is not None:
            if given.get("workspace"):
                raise click.UsageError("--workspace goes with --data; a login is of one workspace.")
            # Only the way that is used is loaded: over HTTP a command answers in a tenth of the time.
            with (
                importlib.import_module("keyrack.cli.connection.over_http").OverHttp(login.url, login.token) as calls,
                _advised(),
            ):
                yield calls
            return
        raise click.ClickException(
            f"You are not logged in, and there is no instance's data in {FOLDER}: `keyrack login URL`, or --data DIR."
        )
    with importlib.import_module("keyrack.cli.connection.on_data").on_data(given) as calls, _advised():
        yield calls


def is_on_data(given: Mapping[str, Any]) -> bool:
    """Whether a command works on the data: an option or a setting names it, or it lies in the usual folder."""
    named = any(given.get(name) for name in ("data", "database"))
    if not named and logins.from_environment() is not None:
        return False
    return named or any(os.environ.get(f"KEYRACK_{name}") for name in ("DATA", "DATABASE")) or FOLDER.is_dir()


@contextmanager
def _advised() -> Iterator[None]:
    """Say what to do next if something that a command names is missing, unless the command said so itself."""
    try:
        yield
    except CallRefused as refused:
        if refused.advised or refused.code not in NEXT:
            raise
        raise refused.with_advice(NEXT[refused.code]) from None


@contextmanager
def if_missing(hint: str) -> Iterator[None]:
    """Add to a refusal, for what is missing, what to do next."""
    try:
        yield
    except CallRefused as refused:
        if refused.advised or refused.status != 404:
            raise
        raise refused.with_advice(hint) from None


__all__ = [
    "ID",
    "PAGE_SIZE",
    "CallRefused",
    "Calls",
    "Unreachable",
    "connected",
    "connection_options",
    "if_missing",
    "is_on_data",
    "path_to",
    "texts",
]
