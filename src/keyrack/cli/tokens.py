"""`keyrack tokens …`: API tokens as the operator sees and ends them; must hold no rule."""

from __future__ import annotations

from typing import Any

import click

from keyrack.cli.operator_context import ID, known_id, operator_context, shared
from keyrack.cli.shown import say
from keyrack.cli.spans import asked_end, moment
from keyrack.cli.tables import AT_ONCE, as_json, every, table
from keyrack.core.people import api_tokens, tokens


@click.group(name="tokens")
def command() -> None:
    """API tokens: whose, what they may, when they end, when they were last used."""


@command.command(name="list")
@as_json
@shared
def list_tokens(json_wanted: bool, **given: Any) -> None:
    """List API tokens that are not revoked."""
    with operator_context(given) as at:
        rows = [
            (
                one.token.id,
                one.token.name,
                one.user.name,
                " ".join(one.token.scopes) or "-",
                moment(one.token.created_at),
                moment(one.token.expires_at),
                moment(one.token.last_used_at),
            )
            for one in every(lambda offset: tokens.find(at.instance, at.actor, offset=offset, limit=AT_ONCE))
        ]
        table(("ID", "NAME", "USER", "SCOPES", "CREATED", "END", "LAST USED"), rows, json_wanted)


@command.command()
@click.argument("token_id", metavar="ID", type=ID)
@shared
def revoke(token_id: int, **given: Any) -> None:
    """Revoke an API token; from now on it opens nothing."""
    with operator_context(given) as at, known_id("`keyrack tokens list` shows which there are."):
        gone = tokens.revoke_id(at.instance, at.actor, token_id)
        say(f"Revoked token {gone.token.name} of {gone.user.name}.")


@command.command()
@click.argument("name", metavar="NAME")
@click.option("--user", required=True, metavar="USER", help="Whose it is.")
@click.option(
    "--scope", "scopes", multiple=True, required=True, metavar="SCOPE", help="Such as servers:read; repeated."
)
@click.option("--until", metavar="TIME", help="The end, such as 90d or 2026-12-24T16:00:00Z; otherwise there is none.")
@shared
def create(name: str, user: str, scopes: tuple[str, ...], until: str | None, **given: Any) -> None:
    """Make an API token, and print it this once."""
    end = None if until is None else asked_end("--until", until)
    with operator_context(given) as at, known_id(f"Nobody here is called {user!r}."):
        _show_made(api_tokens.make(at.instance, at.actor, name=name, scopes=scopes, expires_at=end, user=user))


@command.command()
@click.argument("token_id", metavar="ID", type=ID)
@click.option("--overlap", default="0s", metavar="TIME", help="How long the old one goes on, such as 24h. [0s]")
@shared
def rotate(token_id: int, overlap: str, **given: Any) -> None:
    """Give an API token a new secret, and print it this once."""
    with operator_context(given) as at, known_id("`keyrack tokens list` shows which there are."):
        _show_made(api_tokens.rotate(at.instance, at.actor, token_id, overlap=overlap))


def _show_made(made: api_tokens.Made) -> None:
    held = made.bearer.token
    say(made.secret)
    say(f"Token {held.name} of {made.bearer.user.name}, id {held.id}, ends {moment(held.expires_at)}.", err=True)
    if made.replaced is not None:
        say(f"The one before, id {made.replaced.id}, ends {moment(made.replaced.expires_at)}.", err=True)
