"""`keyrack login`: keeps where the service is and a token for it; must never show the token."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from keyrack.cli.connection import logins, over_http
from keyrack.cli.connection.calls import CallRefused
from keyrack.cli.connection.logins import SavedLogin
from keyrack.cli.files import standard_input
from keyrack.cli.output.shown import say

LONGEST = 4096


@click.command(name="login")
@click.argument("url", metavar="URL")
@click.option(
    "--token-file",
    metavar="FILE",
    type=click.Path(exists=True, allow_dash=True, dir_okay=False, path_type=Path),
    help="Read the token from FILE, or from standard input for -; otherwise it is asked for.",
)
def command(url: str, token_file: Path | None) -> None:
    """Log in to a service: its address and your token are kept in a file that only you can read.

    From then on commands go there, unless --data, KEYRACK_DATA or a folder keyrack-data names an instance's own data.
    Programs set KEYRACK_URL and KEYRACK_TOKEN instead.
    """
    url = over_http.check(url)
    token = _token(token_file)
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise click.UsageError("A token is one word, as `keyrack tokens create` prints it.")
    name = ""
    try:
        with over_http.OverHttp(url, token) as calls:
            name = calls.ask("GET", "/people/me")["name"]
    except CallRefused as refused:
        if refused.status == 401:
            raise click.ClickException(f"{url} does not know this token.") from None
        if refused.status != 403 and refused.code != "user-missing":
            raise
    try:
        logins.keep(SavedLogin(url, token, name))
    except OSError as error:
        raise click.ClickException(f"{logins.path()}: {error.strerror}.") from None
    say(f"Logged in at {url}{f' as {name}' if name else ''}; kept in {logins.path()}.")
    if note := logins.note():
        say(note, err=True)


def _token(file: Path | None) -> str:
    if file is None and sys.stdin is not None and sys.stdin.isatty():
        return str(click.prompt("Token", hide_input=True, err=True)).strip()
    try:
        if file is None or str(file) == "-":
            return standard_input().read(LONGEST).decode("utf-8").strip()
        with file.open(encoding="utf-8") as stream:
            return stream.read(LONGEST).strip()
    except (OSError, UnicodeDecodeError):
        raise click.ClickException("The token cannot be read.") from None
