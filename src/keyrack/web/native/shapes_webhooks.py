"""Webhooks: what calls take and answer; must call no use case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from keyrack.core.audit.webhooks import WebhookWithSecret
from keyrack.model import Level
from keyrack.store.audit.webhooks import WAITING, DeliveryState
from keyrack.store.audit.webhooks import Delivery as DeliveryRecord
from keyrack.store.audit.webhooks import Webhook as WebhookRecord
from keyrack.web.native.shapes import (
    Answer,
    Count,
    Id,
    IdAsked,
    PerPage,
    Query,
    Request,
    Time,
    about,
    time,
    time_or_null,
)


class NewWebhook(Request):
    """Where events are to be sent."""

    url: Annotated[str, about("The https address.", "https://alerts.example.org/keyrack")]
    secret: Annotated[str | None, about("What signatures are made with; one is made where it is left out.", None)] = (
        None
    )
    level: Annotated[Level, about("The lowest level of events to send.", "warning")] = "warning"
    actions: Annotated[list[str] | None, about("Patterns over actions; all where it is left out.", ["*"])] = None


class Webhook(Answer):
    """Where events are sent."""

    id: Annotated[Id, about("Its id.")]
    url: Annotated[str, about("The address.", "https://alerts.example.org/keyrack")]
    level: Annotated[Level, about("The lowest level of events that are sent.", "warning")]
    actions: Annotated[list[str], about("Patterns over actions.", ["*"])]
    created_by: Annotated[str, about("Who made it.", "olga")]
    created_at: Annotated[Time, about("When it was made.")]


class MadeWebhook(Webhook):
    """A new webhook, with its secret, which is shown this once."""

    untagged: ClassVar[frozenset[str]] = frozenset({"secret"})

    secret: Annotated[str, about("What signatures are made with. It is shown this once.", "krwh_EXAMPLE")]


class StandingWebhook(Webhook):
    """A webhook that stands, with its secret where that was set just now."""

    untagged: ClassVar[frozenset[str]] = frozenset({"secret"})

    secret: Annotated[str | None, about("What signatures are made with, where it was set by this call.", None)]


class Webhooks(Answer):
    """The webhooks of the workspace."""

    items: Annotated[list[Webhook], about("Oldest first.")]


class DeliveriesAsked(Query):
    """Which part of what was sent."""

    before: Annotated[IdAsked, about("What is older than the delivery with this id.", 99)] = None
    per_page: Annotated[PerPage, about("How many a page holds: 1 to 200.", 50)] = 50


class Delivery(Answer):
    """An event for a webhook."""

    id: Annotated[Id, about("Its id, which the receiver gets as X-Keyrack-Delivery.")]
    event: Annotated[Id | None, about("The event; null for a test.")]
    state: Annotated[DeliveryState, about("How far it is.", "delivered")]
    attempts: Annotated[Count, about("How often it was tried.")]
    status: Annotated[int | None, about("What was answered last; null where nobody answered.", 200)]
    words: Annotated[str, about("Why it was not taken.", "")]
    next_at: Annotated[Time | None, about("When it is tried next; null where it is not.")]
    created_at: Annotated[Time, about("Since when it waits.")]
    delivered_at: Annotated[Time | None, about("When it was taken.")]


class Deliveries(Answer):
    """What was sent or waits, newest first."""

    items: Annotated[list[Delivery], about("What the page holds.")]


def webhook(held: WebhookRecord) -> Webhook:
    """A webhook, never its secret."""
    return Webhook(
        id=held.id,
        url=held.url,
        level=held.level,
        actions=list(held.actions),
        created_by=held.created_by,
        created_at=time(held.created_at),
    )


def made(new: WebhookWithSecret) -> MadeWebhook:
    """A new webhook, this once with its secret."""
    return MadeWebhook(**webhook(new.webhook).model_dump(), secret=new.secret)


def standing(record: WebhookWithSecret) -> StandingWebhook:
    """A webhook that stands."""
    return StandingWebhook(**webhook(record.webhook).model_dump(), secret=record.secret or None)


def delivery(one: DeliveryRecord) -> Delivery:
    """An event for a webhook."""
    return Delivery(
        id=one.id,
        event=one.event_id,
        state=one.state,
        attempts=one.attempts,
        status=one.status,
        words=one.words,
        next_at=time(one.next_at) if one.state == WAITING else None,
        created_at=time(one.created_at),
        delivered_at=time_or_null(one.delivered_at),
    )


def deliveries(records: Sequence[DeliveryRecord]) -> Deliveries:
    """What was sent or waits."""
    return Deliveries(items=[delivery(one) for one in records])
