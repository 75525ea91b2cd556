"""Freezes: keys that open no new session until their owners confirm them; must hold no rule of its own."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from keyrack.core.keys import freezes
from keyrack.web import bodies
from keyrack.web.console.pages_live import hosts_awaited
from keyrack.web.console.visits import CONFIRMED, FIRST_PRESS, Visit, change, page

HERE = "/freezes"
PER_PAGE = 50
WHOSE = (("user", "keys of a person"), ("server", "keys on a host"), ("all", "all keys of the workspace"))


def listed(visit: Visit) -> Response:
    """The freezes, the newest first."""
    before = bodies.identifier(visit.query.get("before", "")) or None
    piece = freezes.find(visit.instance, visit.actor, before=before, limit=PER_PAGE + 1)
    shown = piece[:PER_PAGE]
    return visit.show(
        "freezes.html",
        freezes=shown,
        first=HERE if before else "",
        next=f"{HERE}?before={shown[-1].id}" if len(piece) > PER_PAGE else "",
        asking="whose" in visit.query or visit.refusal is not None,
        whose=WHOSE,
        given={name: visit.form.text(name) or visit.query.get(name, "") for name in ("whose", "name", "reason")},
    )


def _meant(visit: Visit) -> dict[str, Any]:
    whose, name = visit.form.text("whose"), visit.form.text("name").strip()
    return {"user": name if whose == "user" else None, "server": name if whose == "server" else None}


def freeze(visit: Visit) -> Response:
    """Show what a freeze would stop, and make it once that was confirmed."""
    if not visit.form.flag(CONFIRMED):
        preview = freezes.preview(visit.instance, visit.actor, **_meant(visit), reason=visit.form.text("reason"))
        kept = [(name, visit.form.text(name)) for name in ("whose", "name", "reason")]
        return visit.show("freeze_preview.html", preview=preview, hidden=[*kept, (CONFIRMED, "yes")])
    made = freezes.freeze(visit.instance, visit.actor, **_meant(visit), reason=visit.form.text("reason"))
    assert made.freeze is not None
    return visit.go(f"{HERE}/{made.freeze.id}", f"{made.keys} keys {made.where} open no new session from now on.")


def show(visit: Visit) -> Response:
    """One freeze, and which hosts obey it."""
    shown = freezes.get(visit.instance, visit.actor, visit.number("id"))
    given: dict[str, Any] = {"receipts": shown.servers, "obeyed": "obeys it"}
    if visit.is_part:
        return visit.show("_receipts.html", **given)
    return visit.show("freeze.html", **given, freeze=shown.freeze, waiting=hosts_awaited(shown.servers))


def end(visit: Visit) -> Response:
    """End a freeze."""
    ended = freezes.end(visit.instance, visit.actor, visit.number("id"))
    return visit.go(f"{HERE}/{ended.id}", "The freeze has ended; keys that nobody confirmed open sessions again.")


PAGES = (
    page(HERE, listed, freezes.READ),
    change(HERE, freeze, freezes.FREEZE, again=listed, preview=FIRST_PRESS),
    page(HERE + "/{id}", show, freezes.READ),
    change(HERE + "/{id}/end", end, freezes.FREEZE, again=show, dangerous=True, undo=HERE),
)
