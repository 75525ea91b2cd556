"""`keyrack people …`: users and where their keys come from, as the operator sees and sets it; must hold no rule."""

from __future__ import annotations

from typing import Any

import click

from keyrack.cli.operator_context import known_id, operator_context, shared
from keyrack.cli.shown import say
from keyrack.cli.spans import moment
from keyrack.cli.tables import AT_ONCE, as_json, every, table
from keyrack.core.keys import key_sources
from keyrack.core.people import named_people
from keyrack.model import Role

HINT = "`keyrack people list` shows whom there is."
KIND = click.Choice(["github", "gitlab"])


@click.group(name="people")
def command() -> None:
    """Users: persons and programs, what each may, and the accounts elsewhere that their keys come from."""


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


@command.command(name="list")
@as_json
@shared
def list_people(json_wanted: bool, **given: Any) -> None:
    """List users, oldest first."""
    with operator_context(given) as at:
        found = every(lambda offset: named_people.find(at.instance, at.actor, offset=offset, limit=AT_ONCE))
        rows = [
            (
                one.id,
                one.name,
                one.role.value,
                one.kind,
                ", ".join(one.policies) or "-",
                moment(one.disabled_at),
                moment(one.created_at),
            )
            for one in found
        ]
        table(("ID", "NAME", "ROLE", "KIND", "POLICIES", "DISABLED", "CREATED"), rows, json_wanted)


@command.command(name="set")
@click.argument("name", metavar="USER")
@click.option("--role", type=click.Choice([role.value for role in Role]), help="An auditor reads everything.")
@click.option("--kind", type=click.Choice(["person", "service"]), help="A person, or a program.")
@click.option("--policy", "policies", multiple=True, metavar="PATTERN", help="What else the user may; several times.")
@click.option("--disabled/--enabled", "disabled", default=None, help="Shut the user out, or in again.")
@shared
def set_person(
    name: str, role: str | None, kind: str | None, policies: tuple[str, ...], disabled: bool | None, **given: Any
) -> None:
    """Make a user exist, and change what is said: keyrack people set bot --kind service --role auditor"""
    with operator_context(given) as at:
        user = named_people.put(
            at.instance,
            at.actor,
            name,
            make=True,
            role=None if role is None else Role(role),
            kind=kind,
            policies=list(policies) or None,
            disabled=disabled,
        )
        state = ", disabled" if user.disabled_at else ""
        say(f"{user.name} is {user.role.value} ({user.kind}{state}).")


@command.command()
@click.argument("name", metavar="USER")
@shared
def delete(name: str, **given: Any) -> None:
    """Delete a user: tokens end, and the keys leave every server."""
    with operator_context(given) as at, known_id(HINT):
        say(f"Deleted {named_people.delete(at.instance, at.actor, name).name}.")
