"""`keyrack webhooks …`: where events are sent; must hold no rule."""

from __future__ import annotations

from typing import Any

import click

from keyrack.cli.changes import tell
from keyrack.cli.connection.calls import ID, connected, connection_options, if_missing, path_to
from keyrack.cli.output.shown import say
from keyrack.cli.output.tables import as_json, as_json_object, dash, show_json, table
from keyrack.model import LEVELS

HINT = "`keyrack webhooks list` shows which there are."


@click.group(name="webhooks")
def command() -> None:
    """Where events are sent: signed, at least once, and again until they are accepted."""


@command.command(name="list")
@as_json
@connection_options
def list_webhooks(json_wanted: bool, **given: Any) -> None:
    """List webhooks, oldest first."""
    with connected(given) as calls:
        rows = [
            (one["id"], one["url"], one["level"], " ".join(one["actions"]), one["created_by"], one["created_at"])
            for one in calls.ask("GET", "/webhooks")["items"]
        ]
    table(("ID", "URL", "LEVEL", "ACTIONS", "BY", "CREATED"), rows, json_wanted)


@command.command()
@click.argument("url", metavar="URL")
@click.option("--level", type=click.Choice(LEVELS), default="warning", help="The lowest level that is sent. [warning]")
@click.option(
    "--action",
    "actions",
    multiple=True,
    metavar="PATTERN",
    help="Only actions like this, such as grants:*; may be repeated. [*]",
)
@as_json_object
@connection_options
def create(url: str, level: str, actions: tuple[str, ...], json_wanted: bool, **given: Any) -> None:
    """Send events to an address, and print the secret that signs them, only this once."""
    with connected(given) as calls:
        made = calls.ask("POST", "/webhooks", {"url": url, "level": level, "actions": list(actions) or None})
        if json_wanted:
            show_json(made)
            return
        say(made["secret"])
        say(f"Webhook {made['id']} sends events from {level} on to {made['url']}.", err=True)


@command.command()
@click.argument("webhook_id", metavar="ID", type=ID)
@as_json_object
@connection_options
def delete(webhook_id: int, json_wanted: bool, **given: Any) -> None:
    """Delete a webhook: nothing is sent there any more."""
    with connected(given) as calls, if_missing(HINT):
        calls.ask("DELETE", path_to("webhooks", webhook_id))
        tell(None, f"Webhook {webhook_id} is deleted.", json_wanted)


@command.command()
@click.argument("webhook_id", metavar="ID", type=ID)
@as_json_object
@connection_options
def test(webhook_id: int, json_wanted: bool, **given: Any) -> None:
    """Send a test event; `keyrack webhooks deliveries ID` shows what became of it."""
    with connected(given) as calls, if_missing(HINT):
        queued = calls.ask("POST", path_to("webhooks", webhook_id, "test"))
        tell(queued, f"Delivery {queued['id']} waits for the service to send it.", json_wanted)


@command.command()
@click.argument("webhook_id", metavar="ID", type=ID)
@click.option("--limit", type=click.IntRange(1, 200), default=50, help="How many at most. [50]")
@as_json
@connection_options
def deliveries(webhook_id: int, limit: int, json_wanted: bool, **given: Any) -> None:
    """List what was sent or waits to be sent, newest first."""
    with connected(given) as calls, if_missing(HINT):
        items = calls.ask("GET", path_to("webhooks", webhook_id, "deliveries"), query={"per_page": limit})["items"]
    rows = [
        (
            one["id"],
            one["event"] or "test",
            one["state"],
            one["attempts"],
            dash(one["status"]),
            dash(one["next_at"]),
            dash(one["words"]),
        )
        for one in items
    ]
    table(("ID", "EVENT", "STATE", "ATTEMPTS", "STATUS", "NEXT", "WHY"), rows, json_wanted)
