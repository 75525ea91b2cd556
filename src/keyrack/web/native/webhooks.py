"""Keyrack's own API: where events are sent; must hold no rule of its own."""

from __future__ import annotations

from keyrack.core.audit import webhooks
from keyrack.web.api import Call
from keyrack.web.native import shapes_webhooks as shapes
from keyrack.web.native.calls import endpoint


def list_webhooks(call: Call) -> shapes.Webhooks:
    """List the webhooks of the workspace, oldest first"""
    return shapes.Webhooks(items=[shapes.webhook(one) for one in webhooks.find(call.instance, call.actor)])


def show_webhook(call: Call) -> shapes.Webhook:
    """Show a webhook, never its secret"""
    return shapes.webhook(webhooks.get(call.instance, call.actor, call.ids["webhook"]))


def create_webhook(call: Call, new: shapes.NewWebhook) -> shapes.MadeWebhook:
    """Create a webhook: events are sent to an address, signed, from now on"""
    made = webhooks.create(
        call.instance, call.actor, url=new.url, secret=new.secret, level=new.level, actions=new.actions or ("*",)
    )
    return shapes.made(made)


def put_webhook(call: Call, wanted: shapes.NewWebhook) -> shapes.StandingWebhook:
    """Make sure that there is a webhook to this address; creates one if there is none"""
    stands = webhooks.put(
        call.instance,
        call.actor,
        url=wanted.url,
        secret=wanted.secret,
        level=wanted.level,
        actions=wanted.actions or ("*",),
    )
    return shapes.standing(stands)


def delete_webhook(call: Call) -> None:
    """Delete a webhook; no more events are sent to its address"""
    webhooks.delete(call.instance, call.actor, call.ids["webhook"])


def test_webhook(call: Call) -> shapes.Delivery:
    """Queue a test event for a webhook"""
    return shapes.delivery(webhooks.test(call.instance, call.actor, call.ids["webhook"]))


def list_deliveries(call: Call, asked: shapes.DeliveriesAsked) -> shapes.Deliveries:
    """List what was sent to a webhook or waits, newest first"""
    deliveries = webhooks.deliveries(
        call.instance, call.actor, call.ids["webhook"], before=asked.before, limit=asked.per_page
    )
    return shapes.deliveries(deliveries)


ONE = "/webhooks/{webhook}"
ENDPOINTS = (
    endpoint("GET", "/webhooks", list_webhooks, webhooks.READ, answers=shapes.Webhooks),
    endpoint(
        "POST",
        "/webhooks",
        create_webhook,
        webhooks.WRITE,
        takes=shapes.NewWebhook,
        answers=shapes.MadeWebhook,
        shown_at="/webhooks/{id}",
        status=201,
    ),
    endpoint(
        "PUT",
        "/webhooks",
        put_webhook,
        webhooks.WRITE,
        takes=shapes.NewWebhook,
        answers=shapes.StandingWebhook,
        shown_at="/webhooks/{id}",
    ),
    endpoint("GET", ONE, show_webhook, webhooks.READ, answers=shapes.Webhook),
    endpoint("DELETE", ONE, delete_webhook, webhooks.WRITE),
    endpoint("POST", ONE + "/test", test_webhook, webhooks.WRITE, answers=shapes.Delivery, status=202),
    endpoint(
        "GET",
        ONE + "/deliveries",
        list_deliveries,
        webhooks.READ,
        asks=shapes.DeliveriesAsked,
        answers=shapes.Deliveries,
    ),
)
