"""Webhooks: where events are sent, and what was; must hold no rule of its own."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.responses import Response

from keyrack.core.audit import webhooks
from keyrack.store.audit.webhooks import DELIVERED, FAILED
from keyrack.web import bodies
from keyrack.web.console.visits import Asked, Visit, change, page

HERE = "/settings/webhooks"
PER_PAGE = 50
LEVELS = (("alarm", "alarms only"), ("warning", "warnings and alarms"), ("info", "everything"))
MARKS = {DELIVERED: "active", FAILED: "attention"}


def listed(visit: Visit) -> Response:
    """The webhooks that there are."""
    return visit.show(
        "webhooks.html",
        webhooks=webhooks.find(visit.instance, visit.actor),
        adding="add" in visit.query or visit.refusal is not None,
        levels=LEVELS,
    )


def add(visit: Visit) -> Response:
    """Send events to an address, and show the secret that signs them this once."""
    form = visit.form
    made = webhooks.create(
        visit.instance,
        visit.actor,
        url=form.text("url").strip(),
        level=form.text("level"),
        actions=form.text("actions").replace(",", " ").split() or ("*",),
    )
    words = f"Secret that signs what is sent to {urlsplit(made.webhook.url).hostname}"
    return visit.show("secret.html", title=words, secret=made.secret, back=f"{HERE}/{made.webhook.id}", status=200)


def webhook(visit: Visit) -> Response:
    """One webhook, and what was sent there or waits."""
    number = visit.number("id")
    one = webhooks.get(visit.instance, visit.actor, number)
    before = bodies.identifier(visit.query.get("before", "")) or None
    deliveries = webhooks.deliveries(visit.instance, visit.actor, number, before=before, limit=PER_PAGE + 1)
    shown = deliveries[:PER_PAGE]
    return visit.show(
        "webhook.html",
        webhook=one,
        deliveries=shown,
        marks=MARKS,
        first=f"{HERE}/{number}" if before else "",
        next=f"{HERE}/{number}?before={shown[-1].id}" if len(deliveries) > PER_PAGE else "",
    )


def test(visit: Visit) -> Response:
    """Send a test event now."""
    number = visit.number("id")
    webhooks.test(visit.instance, visit.actor, number)
    return visit.go(f"{HERE}/{number}", "A test is on its way; open this page again to see what was answered.")


def removing(visit: Visit) -> Asked:
    """What removing a webhook does."""
    number = visit.number("id")
    one = webhooks.get(visit.instance, visit.actor, number)
    place = urlsplit(one.url).hostname
    words = f"What happens here, alarms too, is no longer sent to {place}, and what waits to be sent is dropped."
    return Asked(f"Send nothing to {place} any more?", [words], "Send nothing there any more", f"{HERE}/{number}")


def remove(visit: Visit) -> Response:
    """Remove a webhook: nothing is sent there any more."""
    gone = webhooks.delete(visit.instance, visit.actor, visit.number("id"))
    return visit.go(HERE, f"Nothing is sent to {urlsplit(gone.url).hostname} any more.")


PAGES = (
    page(HERE, listed, webhooks.READ),
    change(HERE, add, webhooks.WRITE, again=listed, dangerous=True, undo=HERE + "/{id}/remove"),
    page(HERE + "/{id}", webhook, webhooks.READ),
    change(HERE + "/{id}/test", test, webhooks.WRITE, again=webhook, keeps=False),
    change(HERE + "/{id}/remove", remove, webhooks.WRITE, asks=removing),
)
