"""`keyrack hosts rename`, `move`, `copy-gone`: a server's name, place and machine; must hold no rule."""

from __future__ import annotations

from typing import Any

import click

from keyrack.cli.changes import changed, changing, tell
from keyrack.cli.connection.calls import connected, connection_options, if_missing, path_to
from keyrack.cli.output.tables import as_json_object

HINT = "`keyrack hosts list` shows which there are."


@click.command()
@click.argument("reference", metavar="SERVER")
@click.argument("name", metavar="NAME")
@as_json_object
@connection_options
def rename(reference: str, name: str, json_wanted: bool, **given: Any) -> None:
    """Rename a server.

    The host goes on as it is, under the same id. A file for `keyrack apply` names it by `id`, or by `was`.
    """
    with connected(given) as calls, if_missing(HINT):
        server = calls.ask("PATCH", path_to("servers", reference), {"name": name})
        tell(server, f"Server {server['id']} is now called {server['name']}.", json_wanted)


@click.command()
@click.argument("reference", metavar="SERVER")
@click.argument("address", metavar="ADDRESS")
@click.option("--provider", metavar="TEXT", help="Who provides the machine now.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Its tags now, these and no others; may be repeated.")
@changing
@connection_options
def move(
    reference: str,
    address: str,
    provider: str | None,
    tags: tuple[str, ...],
    dry_run: bool,
    json_wanted: bool,
    **given: Any,
) -> None:
    """Change a server's address, and its provider and tags if they are given.

    The host goes on as it is, under the same id. Tags decide which grants reach it.
    """
    body: dict[str, Any] = {"address": address}
    if provider is not None:
        body["provider"] = provider
    if tags:
        body["tags"] = list(tags)
    with connected(given) as calls, if_missing(HINT):
        changed(
            calls,
            "PATCH",
            path_to("servers", reference),
            body,
            dry_run=dry_run,
            json_wanted=json_wanted,
            words=lambda one: f"Server {one['name']} (id {one['id']}) is now at {one['address']}.",
        )


@click.command(name="copy-gone")
@click.argument("reference", metavar="SERVER")
@as_json_object
@connection_options
def copy_gone(reference: str, json_wanted: bool, **given: Any) -> None:
    """Resume a host whose copy is gone.

    Two machines that use one host's identity get no documents until one of them is gone or enrolled as another server
    (`keyrack hosts enrol --replace`). If both are still there, that is noticed again.
    """
    with connected(given) as calls, if_missing(HINT):
        server = calls.ask("POST", path_to("servers", reference, "copy-gone"))
        tell(server, f"Server {server['name']} goes on with the machine that asks next.", json_wanted)
