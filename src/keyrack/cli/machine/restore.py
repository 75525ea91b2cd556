"""`keyrack restore`: puts a backup in the place of the database; must hold no rule, the core has them."""

from __future__ import annotations

import itertools
import os
import shlex
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from keyrack import app
from keyrack.cli import options
from keyrack.cli.connection.explained import explained
from keyrack.cli.machine.backup import sqlite_file
from keyrack.core import ownership, restoring
from keyrack.core.restoring import Loss
from keyrack.protocol.words import count
from keyrack.settings import Settings
from keyrack.store.engine import backup, migrate
from keyrack.store.engine.backup import BackupProblem, Newer

MAX_HOSTS = 100


@click.command(name="restore")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--bring-back", is_flag=True, help="Also bring back what was taken away since the backup.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.data
@options.database
def command(file: Path, bring_back: bool, yes: bool, **given: Any) -> None:
    """Replace the database with a backup, while no service runs.

    Keys, tokens and rights that were taken away since stay taken away where the database to be replaced can still
    be read. Hosts keep refusing what they refuse. The replaced database is kept beside the new one.
    """
    settings = options.settings(**given)
    database = sqlite_file(settings, f"pg_restore --clean --if-exists {shlex.quote(str(file))}")
    if not (settings.data / "instance.key").exists():
        raise click.ClickException(
            f"{settings.data / 'instance.key'} is missing; put the instance key that belongs to the backup there first."
        )
    try:
        backup.check(file, database)
        with explained():
            database.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with backup.alone_with(database) as held, explained():
            aside = _restore(settings, file, database, held, bring_back=bring_back, yes=yes)
    except BackupProblem as problem:
        raise click.ClickException(str(problem)) from None
    click.echo(f"Restored {database}." + (f" The replaced one is {aside}." if aside else ""))
    click.echo(
        "Start the service; hosts then tell what they refuse, and `keyrack hosts resync --all` decides.", err=True
    )


def _restore(settings: Settings, file: Path, database: Path, held: Any, *, bring_back: bool, yes: bool) -> Path | None:
    """Prepare a copy of the backup beside the database, ask, and swap the two. Returns where the replaced one is."""
    prepared = database.with_name(f".{database.name}.restoring")
    _remove(prepared)
    try:
        backup.unpack(file, prepared)
        newer = None if held is None else Newer(held)
        instance = app.open_instance(replace(settings, database=f"sqlite:///{prepared.resolve()}"), restoring=True)
        try:
            if newer is not None and newer.version() != migrate.head():
                newer = None
            loss = restoring.compare(instance, newer)
            _show(file, loss, is_there=database.exists(), bring_back=bring_back)
            if not yes and not click.confirm("Restore?"):
                raise click.ClickException("Nothing was changed.")
            restoring.ready(instance, newer, loss, keep_gone=not bring_back)
        finally:
            instance.database.close()
        backup.settle(prepared)
        aside = _free_name(database)
        was_there = database.exists()
        backup.put_in_place(prepared, database, aside)
        # Without it the service raises no alarm that the database went back: this restore is meant.
        (settings.data / ownership.CHECKPOINT).unlink(missing_ok=True)
        return aside if was_there else None
    finally:
        _remove(prepared)


def _free_name(database: Path) -> Path:
    """Where the replaced one is kept; another restore of this second may have taken the first name."""
    name = f"{database.name}.before-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    numbered = (database.with_name(name if number == 1 else f"{name}-{number}") for number in itertools.count(1))
    return next(path for path in numbered if not os.path.lexists(path))


def _show(file: Path, loss: Loss, *, is_there: bool, bring_back: bool) -> None:
    made = "without an event" if loss.made_at is None else f"as of {loss.made_at:%Y-%m-%d %H:%M:%S} UTC"
    click.echo(f"{file}: a database of this instance, {made}.")
    if loss.lost is None:
        why = "cannot be read, or does not go on from this backup" if is_there else "is not there"
        click.echo(
            f"The database to be replaced {why}: what was taken away since the backup is known to hosts alone. They "
            "keep refusing it; tokens, passwords and keys that no host knew must be taken away again by hand."
        )
        return
    added = restoring.listed(loss.added)
    click.echo(f"Lost: {count(loss.lost, 'event')} since" + (f", and what they added: {added}." if added else "."))
    if loss.hosts:
        enrolled = ", ".join(loss.hosts[:MAX_HOSTS]) + (" …" if len(loss.hosts) > MAX_HOSTS else "")
        click.echo(
            f"{count(len(loss.hosts), 'host')} enrolled since, and would be told nothing, revocations included, until "
            f"`keyrack hosts enrol SERVER --replace` and its line pasted there: {enrolled}."
        )
    gone = restoring.listed(loss.gone) or "nothing"
    click.echo(f"{'COMES BACK' if bring_back else 'Stays taken away'}: {gone}.")


def _remove(prepared: Path) -> None:
    for ending in ("", "-wal", "-shm"):
        with suppress(OSError):  # what cannot be deleted is in the way of the next copy, which says why
            os.unlink(f"{prepared}{ending}")
