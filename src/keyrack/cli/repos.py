"""`keyrack repos …`: create, list and change Git repositories; must hold no rule, the core has them."""

from __future__ import annotations

import importlib
from typing import Any

import click

from keyrack.cli.changes import tell
from keyrack.cli.connection.calls import CallRefused, Calls, connected, connection_options, is_on_data, path_to
from keyrack.cli.output.shown import say
from keyrack.cli.output.tables import as_json, as_json_object, dash, show_json, table

ALL = "/repositories"


@click.group(name="repos")
def command() -> None:
    """Git repositories."""


@command.command()
@click.argument("path", metavar="GROUP/NAME")
@click.option(
    "--member",
    "members",
    multiple=True,
    metavar="USER=ROLE",
    help="A user, and viewer, developer or admin; may be repeated. Members who are not named are removed.",
)
@as_json_object
@connection_options
def create(path: str, members: tuple[str, ...], json_wanted: bool, **given: Any) -> None:
    """Create a repository, or set the members of one that exists, and print its clone address.

    Such as: keyrack repos create acme/site --member alice=developer
    """
    with connected(given) as calls:
        roles = dict(_member(text) for text in members)
        made = calls.ask("PUT", ALL, {"path": path, "members": roles or None})
        if json_wanted:
            show_json(made)
            return
        say(f"{path} is there.", err=True)
        say(made["clone_url"])


@command.command(name="list")
@as_json
@connection_options
def list_repositories(json_wanted: bool, **given: Any) -> None:
    """List repositories; with --data also the folder of each."""
    if is_on_data(given):
        # Loaded where it is done: over HTTP a command waits for no database.
        importlib.import_module("keyrack.cli.repos_on_data").show(json_wanted, given)
        return
    with connected(given) as calls:
        rows = [(one["id"], one["path"], one["visibility"], dash(one["default_branch"])) for one in calls.every(ALL)]
        table(("ID", "PATH", "VISIBILITY", "BRANCH"), rows, json_wanted)


@command.command()
@click.argument("path", metavar="GROUP/NAME")
@click.option("--visibility", type=click.Choice(["0", "10", "20"]), help="0 private, 10 the workspace, 20 everybody.")
@click.option(
    "--protect/--unprotect", "protect", default=None, help="Protect the default branch, or stop protecting it."
)
@as_json_object
@connection_options
def change(path: str, visibility: str | None, protect: bool | None, json_wanted: bool, **given: Any) -> None:
    """Protect a repository's default branch, or change who may read it."""
    if visibility is None and protect is None:
        raise click.UsageError("Say what to change: --visibility, --protect or --unprotect.")
    with connected(given) as calls:
        body = {"visibility": None if visibility is None else int(visibility), "protect_default": protect}
        one = calls.ask("PATCH", _at(calls, path), body)
        if json_wanted:
            show_json(one)
            return
        protected = "protected" if one["protect_default"] else "not protected"
        say(f"{one['path']}: visibility {one['visibility']}, default branch {protected}.")


@command.command()
@click.argument("path", metavar="GROUP/NAME")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json_object
@connection_options
def delete(path: str, yes: bool, json_wanted: bool, **given: Any) -> None:
    """Delete a repository with all that is in it, its members and its deploy keys."""
    with connected(given) as calls:
        place = _at(calls, path)
        if not yes and not click.confirm(f"Delete {path} with all that is in it?"):
            raise click.ClickException("Nothing was deleted.")
        calls.ask("DELETE", place)
        tell(None, f"Deleted the repository {path}.", json_wanted)


def _at(calls: Calls, path: str) -> str:
    """The place of a repository in the API. Raises CallRefused where there is none that the caller may see."""
    repositories = [one for one in calls.every(ALL, {"search": path}) if one["path"] == path]
    if not repositories:
        raise CallRefused(404, "repository-missing", f"There is no repository {path!r} that you may see.")
    return path_to("repositories", repositories[0]["id"])


def _member(text: str) -> tuple[str, str]:
    name, _, role = text.rpartition("=")
    if not name:
        raise click.UsageError(f"--member takes USER=ROLE, not {text!r}.")
    return name, role
