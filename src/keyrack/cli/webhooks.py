"""`keyrack webhooks …`: where events are sent, as the operator says it; must hold no rule."""

from __future__ import annotations

from typing import Any

import click

from keyrack.cli.operator_context import ID, known_id, operator_context, shared
from keyrack.cli.shown import say
from keyrack.cli.spans import moment
from keyrack.cli.tables import as_json, table
from keyrack.core.audit import webhooks
from keyrack.store.webhooks import WAITING

KNOWN = "`keyrack webhooks list` shows which there are."


@click.group(name="webhooks")
def command() -> None:
    """Where events are sent: signed, at least once, again until they are taken."""


@command.command(name="list")
@as_json
@shared
def list_webhooks(json_wanted: bool, **given: Any) -> None:
    """List webhooks, oldest first."""
    with operator_context(given) as at:
        rows = [
            (one.id, one.url, one.level, " ".join(one.actions), one.created_by, moment(one.created_at))
            for one in webhooks.find(at.instance, at.actor)
        ]
        table(("ID", "URL", "LEVEL", "ACTIONS", "BY", "CREATED"), rows, json_wanted)


@command.command()
@click.argument("url", metavar="URL")
@click.option(
    "--level", type=click.Choice(webhooks.LEVELS), default="warning", help="The least that is sent. [warning]"
)
@click.option("--action", "actions", multiple=True, metavar="PATTERN", help="Such as grants:*; repeated. [*]")
@shared
def create(url: str, level: str, actions: tuple[str, ...], **given: Any) -> None:
    """Send events to an address, and print the secret that signs them, this once."""
    with operator_context(given) as at:
        made = webhooks.create(at.instance, at.actor, url=url, level=level, actions=actions or ("*",))
        say(made.secret)
        say(f"Webhook {made.webhook.id} sends events from {level} on to {made.webhook.url}.", err=True)


@command.command()
@click.argument("webhook_id", metavar="ID", type=ID)
@shared
def delete(webhook_id: int, **given: Any) -> None:
    """Send events there no more."""
    with operator_context(given) as at, known_id(KNOWN):
        gone = webhooks.delete(at.instance, at.actor, webhook_id)
        say(f"Events are sent to {gone.url} no more.")


@command.command()
@click.argument("webhook_id", metavar="ID", type=ID)
@shared
def test(webhook_id: int, **given: Any) -> None:
    """Have a test sent there by the service; `keyrack webhooks deliveries ID` says what became of it."""
    with operator_context(given) as at, known_id(KNOWN):
        queued = webhooks.test(at.instance, at.actor, webhook_id)
        say(f"Delivery {queued.id} waits for the service to send it.")


@command.command()
@click.argument("webhook_id", metavar="ID", type=ID)
@click.option("--limit", type=click.IntRange(1, 200), default=50, help="How many at most. [50]")
@as_json
@shared
def deliveries(webhook_id: int, limit: int, json_wanted: bool, **given: Any) -> None:
    """List what was sent there or waits, newest first."""
    with operator_context(given) as at, known_id(KNOWN):
        rows = [
            (
                one.id,
                one.event_id or "test",
                one.state,
                one.attempts,
                one.status or "-",
                moment(one.next_at) if one.state == WAITING else "-",
                one.words or "-",
            )
            for one in webhooks.deliveries(at.instance, at.actor, webhook_id, limit=limit)
        ]
        table(("ID", "EVENT", "STATE", "ATTEMPTS", "STATUS", "NEXT", "WHY"), rows, json_wanted)
