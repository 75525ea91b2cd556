"""Options that several commands share, and settings made of them; must hold no default of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from keyrack.settings import FIELDS, Settings, SettingsError

F = TypeVar("F", bound=Callable[..., Any])


def _option(name: str, flag: str, **extra: Any) -> Callable[[F], F]:
    field = FIELDS[name]
    shown = f"{field.metadata['description']} [default: {field.default or 'none'}; KEYRACK_{name.upper()}]"
    return click.option(flag, name, default=None, help=shown, **extra)


listen = _option("listen", "--listen", metavar="HOST:PORT")
data = _option("data", "--data", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
database = _option("database", "--database", metavar="URL")
public_url = _option("public_url", "--public-url", metavar="URL")
git_listen = _option("git_listen", "--git-listen", metavar="HOST:PORT")
workers = _option("workers", "--workers", metavar="N", type=int)
new_database = click.option(
    "--new-database", is_flag=True, help="Begin with an empty database, although this instance key had another one."
)


def settings(**given: Any) -> Settings:
    """Settings from options, where given, then the environment and DATA/keyrack.toml; exits with words."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except SettingsError as error:
        raise click.UsageError(str(error)) from None
    except OSError as error:
        raise click.UsageError(f"{error.filename} cannot be read: {error.strerror}.") from None
