"""`keyrack groups …`: groups as the operator sees and changes them; must hold no rule."""

from __future__ import annotations

from typing import Any

import click

from keyrack.cli.operator_context import known_id, operator_context, shared
from keyrack.cli.shown import say
from keyrack.cli.tables import AT_ONCE, as_json, every, table
from keyrack.core.people import groups

HINT = "`keyrack groups list` and `keyrack people list` show what there is."


@click.group(name="groups")
def command() -> None:
    """Groups of users, which grants are given to."""


@command.command(name="list")
@as_json
@shared
def list_groups(json_wanted: bool, **given: Any) -> None:
    """List groups by name, each with its users."""
    with operator_context(given) as at:
        found = every(lambda offset: groups.find(at.instance, at.actor, offset=offset, limit=AT_ONCE))
        rows = [(one.id, one.name, ", ".join(one.members) or "-") for one in found]
        table(("ID", "NAME", "MEMBERS"), rows, json_wanted)


@command.command(name="set")
@click.argument("name", metavar="GROUP")
@click.argument("members", metavar="[USER]...", nargs=-1)
@shared
def set_group(name: str, members: tuple[str, ...], **given: Any) -> None:
    """Make a group exist with exactly these users: keyrack groups set ops alice bob"""
    with operator_context(given) as at:
        made = groups.put(at.instance, at.actor, name, members)
        say(f"In group {made.name}: {', '.join(made.members) or 'nobody'}.")


@command.command()
@click.argument("name", metavar="GROUP")
@click.argument("user", metavar="USER")
@shared
def add(name: str, user: str, **given: Any) -> None:
    """Put a user into a group: keyrack groups add ops alice"""
    with operator_context(given) as at, known_id(HINT):
        groups.add_member(at.instance, at.actor, name, user)
        say(f"{user} is in group {name}.")


@command.command()
@click.argument("name", metavar="GROUP")
@click.argument("user", metavar="USER")
@shared
def remove(name: str, user: str, **given: Any) -> None:
    """Take a user out of a group; keys that nothing else lets in leave the hosts."""
    with operator_context(given) as at, known_id(HINT):
        groups.remove_member(at.instance, at.actor, name, user)
        say(f"{user} is not in group {name} any more.")


@command.command()
@click.argument("name", metavar="GROUP")
@shared
def delete(name: str, **given: Any) -> None:
    """Delete a group with its grants."""
    with operator_context(given) as at, known_id(HINT):
        gone = groups.delete(at.instance, at.actor, name)
        say(f"Deleted group {gone.name}, in which were: {', '.join(gone.members) or 'nobody'}.")
