"""`keyrack tokens …`: API tokens as the operator sees and ends them; must hold no rule, and show no token."""

from __future__ import annotations

from typing import Any

import click

from keyrack.cli.operator_context import ID, known_id, operator_context, shared
from keyrack.cli.shown import say
from keyrack.cli.spans import moment
from keyrack.cli.tables import AT_ONCE, as_json, every, table
from keyrack.core.people import tokens


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
