"""Reads what calls of Keyrack's own API send: pages, spans of time, fields, which server; must change nothing."""

from __future__ import annotations

from datetime import datetime
from functools import wraps
from typing import Any

from starlette.responses import Response

from keyrack.core.audit import events
from keyrack.core.hosts import servers
from keyrack.errors import invalid
from keyrack.model import Server
from keyrack.web import bodies
from keyrack.web.api import Call, Handler

PER_PAGE = 50
MOST_PER_PAGE = 200


def window(call: Call) -> dict[str, Any]:
    """Offset and limit of the page asked for: `page` from 1, `per_page` from 1 to 200. Raises Refusal INVALID."""
    per_page = _whole(call, "per_page", PER_PAGE, MOST_PER_PAGE)
    return {"offset": (_whole(call, "page", 1, bodies.LARGEST_ID) - 1) * per_page, "limit": per_page}


def span(call: Call) -> dict[str, Any]:
    """The part of the audit log asked for: `from`, `to`, and `before`, an event's id. Raises Refusal INVALID."""
    found: dict[str, Any] = {}
    for name, wanted in (("from", "since"), ("to", "until")):
        # + is a blank in a query where it was not written as %2B.
        text = call.query.get(name, "").replace(" ", "+")
        if text:
            found[wanted] = events.moment(text, field=name, end=name == "to")
    if call.query.get("before"):
        found["before"] = _whole(call, "before", 1, bodies.LARGEST_ID)
    return found


def only(call: Call, *names: str) -> None:
    """Refuse fields that a call does not take, so that a misspelt one is not silently left out."""
    for name in call.body:
        if name not in names:
            raise invalid("body", f"This call takes: {', '.join(names)}.", "field-unknown")


def asked(handler: Handler, names: tuple[str, ...]) -> Handler:
    """The handler, which refuses what its query does not take."""

    @wraps(handler)
    def checked(call: Call) -> Response:
        for name in call.query:
            if name not in names:
                known = f"This call takes in its query: {', '.join(names)}." if names else "This call takes no query."
                raise invalid(name if name.isidentifier() else "query", known, "parameter-unknown")
        return handler(call)

    return checked


def moment(call: Call, name: str) -> datetime | None:
    """A field that holds a time in ISO 8601, or None. Raises Refusal INVALID."""
    value = call.body.get(name)
    if value is None:
        return None
    try:
        return datetime.fromisoformat(str(value))
    except ValueError:
        raise invalid(name, "A time is written like 2026-11-22T16:00:00Z.") from None


def server(call: Call) -> Server:
    """The server that the path names, by its id or its name. Raises Refusal MISSING."""
    return servers.named(call.instance, call.actor, call.path["server"])


def server_id(call: Call) -> int:
    """The id in the path as it is; only a name is looked up, which takes servers:read as well."""
    return call.ids["server"] or server(call).id


def _whole(call: Call, name: str, default: int, most: int) -> int:
    text = call.query.get(name, "")
    value = default if text == "" else bodies.number(text)
    if value is None or not 1 <= value <= most:
        raise invalid(name, f"It is a whole number from 1 to {most}.")
    return value
