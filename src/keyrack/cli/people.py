"""`keyrack people …`: where users' keys come from, as the operator sees and sets it; must hold no rule."""

from __future__ import annotations

from typing import Any

import click

from keyrack.cli.operator_context import known_id, operator_context, shared
from keyrack.cli.shown import say
from keyrack.cli.spans import moment
from keyrack.cli.tables import as_json, table
from keyrack.core.keys import key_sources

KIND = click.Choice(["github", "gitlab"])


@click.group(name="people")
def command() -> None:
    """Users: the accounts at GitHub and GitLab that their keys come from."""


@command.group()
def sources() -> None:
    """Accounts whose keys a user has here too, kept in step; `keyrack sync-keys` looks at them now."""


@sources.command(name="list")
@click.argument("user")
@as_json
@shared
def list_sources(user: str, json_wanted: bool, **given: Any) -> None:
    """List the accounts that a user's keys come from."""
    with operator_context(given) as at, known_id("Users are named as they sign in."):
        rows = [
            (one.kind, one.url, one.account, one.state, moment(one.checked_at), one.words or "-")
            for one in key_sources.find(at.instance, at.actor, user)
        ]
        table(("KIND", "URL", "ACCOUNT", "STATE", "LOOKED AT", "WHY"), rows, json_wanted)


@sources.command(name="set")
@click.argument("user")
@click.argument("kind", type=KIND)
@click.argument("account")
@click.option("--url", metavar="URL", help="The service, where it is not github.com or gitlab.com.")
@shared
def set_source(user: str, kind: str, account: str, url: str | None, **given: Any) -> None:
    """Take a user's keys from an account, such as: keyrack people sources set alice github alice-smith"""
    with operator_context(given) as at, known_id("Users are named as they sign in."):
        made = key_sources.put(at.instance, at.actor, user, kind, account=account, url=url)
        say(f"Keys of {user} come from {made.account} at {made.url} too.")


@sources.command()
@click.argument("user")
@click.argument("kind", type=KIND)
@shared
def remove(user: str, kind: str, **given: Any) -> None:
    """Take a user's keys from an account no more, and withdraw those that came from it."""
    with operator_context(given) as at, known_id("`keyrack people sources list USER` shows which there are."):
        gone = key_sources.remove(at.instance, at.actor, user, kind)
        say(f"Keys of {user} come from {gone.account} at {gone.url} no more.")
