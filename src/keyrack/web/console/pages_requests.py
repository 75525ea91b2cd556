"""Requests for access: asking, approving, refusing, and the clock while one runs; must hold no rule of its own."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from keyrack.core.hosts import server_list
from keyrack.core.keys import requests, who_can
from keyrack.store.keys.requests import PENDING
from keyrack.web.console.visits import Visit, change, cursor_of, page, paged

PER_PAGE, MAX_OFFERED = 50, 200
ASK = "requests:ask"


def listed(visit: Visit) -> Response:
    """Requests, those that wait first; members see their own."""
    waiting, names = requests.page(visit.instance, visit.actor, state=PENDING, cursor="", limit=PER_PAGE)
    decided, more = requests.page(visit.instance, visit.actor, cursor=cursor_of(visit), limit=PER_PAGE)
    given: dict[str, Any] = {
        "waiting": waiting.items,
        "decided": [one for one in decided.items if one.state != PENDING],
        "users": {**names.users, **more.users},
        "hosts": {**names.servers, **more.servers},
    }
    if visit.is_part:
        return visit.show("_requests.html", **given)
    asking = "ask" in visit.query or (visit.refusal is not None and visit.request.url.path == "/requests")
    known = _known(visit) if asking else ()
    return visit.show("requests.html", **given, asking=asking, known=known, **paged(visit, decided))


def _known(visit: Visit) -> list[str]:
    """The hosts that the form offers: all that the visitor may see; to members those that they reach already."""
    if visit.may("servers:read"):
        return [one.name for one in server_list.find(visit.instance, visit.actor, limit=MAX_OFFERED).items]
    if visit.actor.user_id is None:
        return []
    ways = who_can.find(visit.instance, visit.actor, user=visit.actor.name).items
    return sorted({way.server.name for way in ways})


def ask(visit: Visit) -> Response:
    """Ask to log in somewhere for a while."""
    where, place = visit.form.text("where"), visit.form.text("server").strip()
    requests.ask(
        visit.instance,
        visit.actor,
        server=None if where == "tag" else place,
        tag=place if where == "tag" else None,
        system_user=visit.form.text("system_user").strip(),
        duration=visit.form.text("duration").strip(),
        reason=visit.form.text("reason"),
    )
    return visit.go("/requests", "You asked; access opens once somebody else approves it.")


def approve(visit: Visit) -> Response:
    """Approve a request."""
    one = requests.approve(visit.instance, visit.actor, visit.number("id"), word=visit.form.text("word"))
    words = "It needs another person's approval too." if one.state == PENDING else "Access is open, and ends by itself."
    return visit.go("/requests", words)


def refuse(visit: Visit) -> Response:
    """Refuse a request."""
    requests.deny(visit.instance, visit.actor, visit.number("id"), word=visit.form.text("word"))
    return visit.go("/requests", "The request is refused.")


def cancel(visit: Visit) -> Response:
    """Take back a request of the visitor's own."""
    requests.cancel(visit.instance, visit.actor, visit.number("id"))
    return visit.go("/requests", "You took your request back.")


PAGES = (
    page("/requests", listed, ASK),
    change("/requests", ask, ASK, again=listed, undo="/requests/{id}/cancel"),
    change("/requests/{id}/approve", approve, "requests:approve", again=listed, undo="/grants/{grant}/remove"),
    change("/requests/{id}/refuse", refuse, "requests:approve", again=listed, undo="/requests"),
    change("/requests/{id}/cancel", cancel, ASK, again=listed, undo="/requests"),
)
