"""`keyrack people …`: users as the operator sees and changes them; must hold no rule, and show no secret."""

from __future__ import annotations

from typing import Any

import click

from keyrack.cli.operator_context import known_id, operator_context, shared
from keyrack.cli.shown import say
from keyrack.cli.spans import moment
from keyrack.cli.tables import AT_ONCE, as_json, every, table
from keyrack.core.people import named_people
from keyrack.model import Role

HINT = "`keyrack people list` shows whom there is."


@click.group(name="people")
def command() -> None:
    """Users: persons and programs, and what each may."""


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
