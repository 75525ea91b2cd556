"""`keyrack logout`: forgets where one was logged in; must not touch the token at the service."""

from __future__ import annotations

import click

from keyrack.cli.connection import logins
from keyrack.cli.output.shown import say


@click.command(name="logout")
def command() -> None:
    """Forget the login. The token stays valid: `keyrack tokens revoke` ends it."""
    try:
        gone = logins.forget()
    except OSError as error:
        raise click.ClickException(f"You are still logged in. {logins.path()}: {error.strerror}.") from None
    say("No login was kept." if gone is None else f"Forgot the login at {gone.url or logins.path()}.")
    if note := logins.note():
        say(note, err=True)
