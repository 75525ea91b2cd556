"""`keyrack logout`: forgets where one was logged in; must not touch the token at the service."""

from __future__ import annotations

import click

from keyrack.cli.connection import logins
from keyrack.cli.output.shown import say


@click.command(name="logout")
def command() -> None:
    """Forget the login. The token stays valid: `keyrack tokens revoke` ends it."""
    gone = logins.forget()
    say("You were not logged in." if gone is None else f"Forgot the login at {gone.url or logins.path()}.")
