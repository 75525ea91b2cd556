"""`keyrack hosts rename`, `move`, `copy-gone`: a server's name, place and machine; must hold no rule."""

from __future__ import annotations

from typing import Any

import click

from keyrack.cli.operator_context import operator_context, shared
from keyrack.cli.shown import say
from keyrack.core.hosts import copies, server_changes
from keyrack.core.hosts.servers import KEEP


@click.command()
@click.argument("reference", metavar="SERVER")
@click.argument("name", metavar="NAME")
@shared
def rename(reference: str, name: str, **given: Any) -> None:
    """Give a server another name.

    The host goes on as it is, under the same id. A file for `keyrack apply` names it by `id`, or by `was`.
    """
    with operator_context(given) as at:
        server = server_changes.change(at.instance, at.actor, at.server(reference).id, name=name)
        say(f"The server {server.id} is called {server.name} now.")


@click.command()
@click.argument("reference", metavar="SERVER")
@click.argument("address", metavar="ADDRESS")
@click.option("--provider", metavar="TEXT", help="Whose machine it is now.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Its tags now, these and no others; repeated.")
@shared
def move(reference: str, address: str, provider: str | None, tags: tuple[str, ...], **given: Any) -> None:
    """Give a server another address, and provider and tags where they are given.

    The host goes on as it is, under the same id.
    """
    with operator_context(given) as at:
        server = server_changes.change(
            at.instance,
            at.actor,
            at.server(reference).id,
            address=address,
            provider=provider if provider is not None else KEEP,
            tags=tags or None,
        )
        say(f"The server {server.name} (id {server.id}) is at {server.address} now.")


@click.command(name="copy-gone")
@click.argument("reference", metavar="SERVER")
@shared
def copy_gone(reference: str, **given: Any) -> None:
    """Go on with a host whose copy is gone.

    Two machines that use one host's identity get no documents until one of them is gone or enrolled as another server
    (`keyrack hosts enrol --replace`). Where both are still there, that is noticed again.
    """
    with operator_context(given) as at:
        server = copies.settle(at.instance, at.actor, at.server(reference).id)
        say(f"The server {server.name} goes on with the machine that asks next.")
