"""`keyrack git-host`: Git over SSH in the foreground; must hold no rule."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import click

from keyrack.app import open_instance
from keyrack.cli import options
from keyrack.cli.connection.explained import explained
from keyrack.cli.connection.opened import refuse_none
from keyrack.cli.machine.alone import serving_git_alone
from keyrack.cli.machine.serve import keep_what_is_loaded, set_up_logging
from keyrack.cli.machine.stopping import Stopping
from keyrack.git.host import GitHost
from keyrack.private_sshd import PrivateSshdError


@click.command(name="git-host")
@options.data
@options.database
@options.git_listen
def command(**given: Any) -> None:
    """Serve Git over SSH until it is stopped.

    It runs beside `keyrack serve`, with the same data folder or database. Clients log in under the name of
    the account that runs it, so run it as an account called git.
    """
    settings = options.settings(**given)
    set_up_logging()
    host, _, port = settings.git_listen.rpartition(":")
    with explained():
        refuse_none(settings, given)
        instance = open_instance(settings)
    stopping = Stopping()
    held = ExitStack()
    git_host = None
    try:
        git_host = GitHost(instance, port=int(port), address=host.strip("[]"))
        held.enter_context(serving_git_alone(git_host.directory))
        git_host.start()
        # Fewer than of the service: each operation leaves some hundred, and there are few in a second.
        keep_what_is_loaded(collect_after=10_000)
        click.echo(f"Git is served at {git_host.url('GROUP/NAME')} (repositories in {git_host.repositories}).")
        stopping.wait()
    except PrivateSshdError as error:
        raise click.ClickException(str(error)) from None
    finally:
        if git_host is not None:
            git_host.stop()
        held.close()
        instance.database.close()
