"""`keyrack groups …`: groups, seen and changed; must hold no rule."""

from __future__ import annotations

from typing import Any

import click

from keyrack.cli import still_let_in
from keyrack.cli.changes import changed, changing
from keyrack.cli.connection.calls import connected, connection_options, if_missing, path_to
from keyrack.cli.output.tables import as_json, dash, table

HINT = "`keyrack groups list` and `keyrack people list` show what there is."


@click.group(name="groups")
def command() -> None:
    """Groups of users, to which grants can be given."""


@command.command(name="list")
@as_json
@connection_options
def list_groups(json_wanted: bool, **given: Any) -> None:
    """List groups by name, each with its users."""
    with connected(given) as calls:
        rows = [(one["id"], one["name"], dash(", ".join(one["members"]))) for one in calls.every("/groups")]
        table(("ID", "NAME", "MEMBERS"), rows, json_wanted)


@command.command(name="set")
@click.argument("name", metavar="GROUP")
@click.argument("members", metavar="[USER]...", nargs=-1)
@changing
@connection_options
def set_group(name: str, members: tuple[str, ...], dry_run: bool, json_wanted: bool, **given: Any) -> None:
    """Create a group, or set its members to exactly these users: keyrack groups set ops alice bob"""
    with connected(given) as calls:
        changed(
            calls,
            "PUT",
            path_to("groups", name),
            {"members": list(members)},
            dry_run=dry_run,
            json_wanted=json_wanted,
            words=lambda made: f"In group {made['name']}: {', '.join(made['members']) or 'nobody'}.",
        )


@command.command()
@click.argument("name", metavar="GROUP")
@click.argument("user", metavar="USER")
@changing
@connection_options
def add(name: str, user: str, dry_run: bool, json_wanted: bool, **given: Any) -> None:
    """Put a user into a group: keyrack groups add ops alice"""
    with connected(given) as calls, if_missing(HINT):
        words = f"{user} is in group {name}."
        path = path_to("groups", name, "members", user)
        changed(calls, "PUT", path, dry_run=dry_run, json_wanted=json_wanted, words=lambda _: words)


@command.command()
@click.argument("name", metavar="GROUP")
@click.argument("user", metavar="USER")
@changing
@connection_options
def remove(name: str, user: str, dry_run: bool, json_wanted: bool, **given: Any) -> None:
    """Take a user out of a group; keys that nothing else lets in are taken from the hosts."""
    with connected(given) as calls, if_missing(HINT):
        group = calls.ask("GET", path_to("groups", name))["name"]
        before = still_let_in.ways(calls, user=user)
        opened = {(one["server_id"], one["system_user"]) for one in before if one["via"]["group"] == group}

        def words(_: object) -> str:
            left = still_let_in.ways(calls, user=user) if opened else []
            there = (one for one in left if (one["server_id"], one["system_user"]) in opened)
            return f"{user} is not in group {name} any more{still_let_in.words(there)}."

        path = path_to("groups", name, "members", user)
        changed(calls, "DELETE", path, dry_run=dry_run, json_wanted=json_wanted, words=words)


@command.command()
@click.argument("name", metavar="GROUP")
@changing
@connection_options
def delete(name: str, dry_run: bool, json_wanted: bool, **given: Any) -> None:
    """Delete a group with its grants."""
    with connected(given) as calls, if_missing(HINT):
        gone = calls.ask("GET", path_to("groups", name))
        words = f"Deleted group {gone['name']}, whose members were: {', '.join(gone['members']) or 'nobody'}."
        changed(
            calls, "DELETE", path_to("groups", name), dry_run=dry_run, json_wanted=json_wanted, words=lambda _: words
        )
