"""`keyrack apply`: brings a workspace to what a file says; must hold no rule, the core has them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from keyrack import app
from keyrack.cli import options
from keyrack.cli.serve import explained
from keyrack.cli.shown import say
from keyrack.core import workspace_file
from keyrack.errors import Refusal


@click.command(name="apply")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@options.data
@options.database
def command(file: Path, **given: Any) -> None:
    """Bring a workspace to what FILE (TOML) says; running it twice changes nothing.

    It may run beside the service. Secrets can come from the environment: password_env = "NAME".
    """
    settings = options.settings(**given)
    with explained():
        instance = app.open_instance(settings)
    try:
        text = file.read_text("utf-8")
        changes = workspace_file.apply(instance, text, os.environ, say)
    except UnicodeDecodeError:
        raise click.ClickException(f"{file} is not UTF-8 text.") from None
    except Refusal as refusal:
        raise click.ClickException(refusal.message) from None
    finally:
        instance.database.close()
    say(f"{len(changes)} changes." if changes else "Nothing to change.")
