"""`keyrack people …`: users and where their keys come from, seen and set; must hold no rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from keyrack.cli import still_let_in
from keyrack.cli.changes import changed, changing, end_of, tell
from keyrack.cli.connection.calls import ID, connected, connection_options, if_missing, path_to
from keyrack.cli.keys_on_many import KEY_FILE, line_of
from keyrack.cli.output.shown import say
from keyrack.cli.output.tables import as_json, as_json_object, dash, show_json, table
from keyrack.model import USER_KINDS

HINT = "`keyrack people list` shows who there is."
NAMED = "Name users as they sign in."
KIND = click.Choice(["github", "gitlab"])
ROLES = ("owner", "admin", "member", "auditor")


@click.group(name="people")
def command() -> None:
    """Users (people and programs), what each may do, and the accounts elsewhere that their keys come from."""


@command.group()
def sources() -> None:
    """Accounts elsewhere whose keys a user has here too, kept in step; `keyrack sync-keys` does so now."""


@sources.command(name="list")
@click.argument("user")
@as_json
@connection_options
def list_sources(user: str, json_wanted: bool, **given: Any) -> None:
    """List the accounts that a user's keys come from."""
    with connected(given) as calls, if_missing(NAMED):
        rows = [
            (
                source["kind"],
                source["url"],
                source["account"],
                source["state"],
                dash(source["checked_at"]),
                dash(source["words"]),
            )
            for source in calls.ask("GET", path_to("people", user, "key-sources"))["items"]
        ]
        table(("KIND", "URL", "ACCOUNT", "STATE", "LOOKED AT", "WHY"), rows, json_wanted)


@sources.command(name="set")
@click.argument("user")
@click.argument("kind", type=KIND)
@click.argument("account")
@click.option("--url", metavar="URL", help="The service, where it is not github.com or gitlab.com.")
@as_json_object
@connection_options
def set_source(user: str, kind: str, account: str, url: str | None, json_wanted: bool, **given: Any) -> None:
    """Take a user's keys from an account, such as: keyrack people sources set alice github alice-smith"""
    with connected(given) as calls, if_missing(NAMED):
        made = calls.ask("PUT", path_to("people", user, "key-sources", kind), {"account": account, "url": url})
        tell(made, f"Keys of {user} come from {made['account']} at {made['url']} too.", json_wanted)


@sources.command()
@click.argument("user")
@click.argument("kind", type=KIND)
@as_json_object
@connection_options
def remove(user: str, kind: str, json_wanted: bool, **given: Any) -> None:
    """Stop taking a user's keys from an account, and withdraw those that came from it."""
    with connected(given) as calls, if_missing("`keyrack people sources list USER` shows which there are."):
        path = path_to("people", user, "key-sources")
        before = [source for source in calls.ask("GET", path)["items"] if source["kind"] == kind]
        calls.ask("DELETE", path_to("people", user, "key-sources", kind))
        named = f"{before[0]['account']} at {before[0]['url']}" if before else kind
        tell(None, f"Keys of {user} no longer come from {named}.", json_wanted)


@command.command(name="list")
@as_json
@connection_options
def list_people(json_wanted: bool, **given: Any) -> None:
    """List users, oldest first."""
    with connected(given) as calls:
        rows = [
            (
                person["id"],
                person["name"],
                person["role"],
                person["kind"],
                dash(", ".join(person["policies"])),
                dash(person["disabled_at"]),
                person["created_at"],
            )
            for person in calls.every("/people")
        ]
        table(("ID", "NAME", "ROLE", "KIND", "POLICIES", "DISABLED", "CREATED"), rows, json_wanted)


@command.command(name="keys")
@click.argument("user")
@as_json
@connection_options
def list_keys(user: str, json_wanted: bool, **given: Any) -> None:
    """List the SSH keys that a user registered, newest first."""
    with connected(given) as calls, if_missing(HINT):
        rows = [
            (key["id"], dash(key["title"]), dash(key["fingerprint"]), key["created_at"], dash(key["expires_at"]))
            for key in calls.every(path_to("people", user, "keys"))
        ]
        table(("ID", "TITLE", "FINGERPRINT", "CREATED", "EXPIRES AT"), rows, json_wanted)


@command.command(name="add-key")
@click.argument("user")
@click.argument("file", metavar="FILE", type=KEY_FILE)
@click.option("--title", metavar="TEXT", help="A title for the key.")
@click.option("--until", metavar="TIME", help="The end, such as 2026-12-24T18:00+01:00, or a day in UTC.")
@changing
@connection_options
def add_key(
    user: str, file: Path, title: str | None, until: str | None, dry_run: bool, json_wanted: bool, **given: Any
) -> None:
    """Register the public key in FILE as a user's own: keyrack people add-key alice alice.pub --title laptop

    Does nothing if the user has it already.
    """
    with connected(given) as calls, if_missing(HINT):
        changed(
            calls,
            "PUT",
            path_to("people", user, "keys"),
            {"title": title, "public_key": line_of(file), "expires_at": end_of(calls, until, None)},
            dry_run=dry_run,
            json_wanted=json_wanted,
            words=lambda made: f"{made['fingerprint']} is a key of {user} (id {made['id']}).",
        )


@command.command(name="delete-key")
@click.argument("user")
@click.argument("key_id", metavar="ID", type=ID)
@changing
@connection_options
def delete_key(user: str, key_id: int, dry_run: bool, json_wanted: bool, **given: Any) -> None:
    """Delete a key of a user; it no longer opens anything by the user's grants."""
    with connected(given) as calls, if_missing(f"`keyrack people keys {user}` shows which there are."):
        key = next((one for one in calls.every(path_to("people", user, "keys")) if one["id"] == key_id), None)
        words = f"Deleted key {key_id} of {user}{still_let_in.of_key(calls, key) if key else ''}."
        path = path_to("people", user, "keys", key_id)
        changed(calls, "DELETE", path, dry_run=dry_run, json_wanted=json_wanted, words=lambda _: words)


@command.command(name="me")
@as_json_object
@connection_options
def show_me(json_wanted: bool, **given: Any) -> None:
    """Show who you are logged in as."""
    with connected(given) as calls:
        me = calls.ask("GET", "/people/me")
        if json_wanted:
            show_json(me)
            return
        say(_is(me))


@command.command(name="set")
@click.argument("name", metavar="USER")
@click.option("--role", type=click.Choice(ROLES), help="The role; an auditor reads everything and changes nothing.")
@click.option("--kind", type=click.Choice(USER_KINDS), help="A person, or a program.")
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="PATTERN",
    help="An action that the user may do besides; may be repeated.",
)
@click.option("--disabled/--enabled", "disabled", default=None, help="Shut the user out, or let them in again.")
@changing
@connection_options
def set_person(
    name: str,
    role: str | None,
    kind: str | None,
    policies: tuple[str, ...],
    disabled: bool | None,
    dry_run: bool,
    json_wanted: bool,
    **given: Any,
) -> None:
    """Create a user, or change what the options say: keyrack people set bot --kind service --role auditor"""
    body = {"role": role, "kind": kind, "policies": list(policies) or None, "disabled": disabled}
    with connected(given) as calls:
        changed(calls, "PUT", path_to("people", name), body, dry_run=dry_run, json_wanted=json_wanted, words=_is)


@command.command()
@click.argument("name", metavar="USER")
@changing
@connection_options
def delete(name: str, dry_run: bool, json_wanted: bool, **given: Any) -> None:
    """Delete a user: tokens end, and the keys leave every server."""
    with connected(given) as calls, if_missing(HINT):
        changed(
            calls,
            "DELETE",
            path_to("people", name),
            dry_run=dry_run,
            json_wanted=json_wanted,
            words=lambda _: f"Deleted {name}.",
        )


def _is(user: dict[str, Any]) -> str:
    state = ", disabled" if user["disabled"] else ""
    return f"{user['name']} is {user['role']} ({user['kind']}{state})."
