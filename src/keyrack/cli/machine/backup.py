"""`keyrack backup`: copies the database while the service runs; must never copy the instance key with it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click
from sqlalchemy.engine import make_url

from keyrack.cli import options
from keyrack.cli.connection.explained import explained
from keyrack.settings import Settings
from keyrack.store.engine import backup
from keyrack.store.engine.backup import BackupProblem
from keyrack.store.engine.connect import parse_url


@click.command(name="backup")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
@options.data
@options.database
def command(file: Path, overwrite: bool, **given: Any) -> None:
    """Copy the database to FILE, also while the service runs.

    The copy is whole as of one moment. It does not hold the instance key; keep that apart.
    """
    settings = options.settings(**given)
    database = sqlite_file(settings, f"pg_dump --format=custom --file={shlex.quote(str(file))}")
    try:
        backup.copy(database, file, overwrite=overwrite)
    except BackupProblem as problem:
        raise click.ClickException(str(problem)) from None
    click.echo(f"Copied {database} to {file} ({file.stat().st_size} bytes).")
    key = settings.data.resolve() / "instance.key"
    click.echo(
        f"It does not hold the instance key, without which it is of no use: {key}. Keep that file apart from the "
        "copy. Git repositories are not in it either.",
        err=True,
    )


def sqlite_file(settings: Settings, instead: str) -> Path:
    """The SQLite file that the settings name; exits with words, and what to run instead, on PostgreSQL."""
    with explained():
        dialect, url = parse_url(settings.database_url)
    if dialect == "postgresql":
        shown = make_url(settings.database_url).set(drivername="postgresql", password=None)
        line = f"{instead} --dbname={shlex.quote(shown.render_as_string())}"
        raise click.ClickException(f"The database is PostgreSQL's: run `{line}`; see docs/recovery.md.")
    return Path(str(url.database))
