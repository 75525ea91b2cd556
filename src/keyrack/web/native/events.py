"""Keyrack's own API: the audit log, and which servers obey what an event changed; must hold no rule of its own."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from keyrack.core.audit import events
from keyrack.core.hosts import servers
from keyrack.core.keys import receipts
from keyrack.web.api import Call, Endpoint
from keyrack.web.native import parameters, shapes


def list_events(call: Call) -> Response:
    """List the audit log, newest first"""
    server = call.query.get("server", "")
    found = events.find(
        call.instance,
        call.actor,
        server_id=servers.named(call.instance, call.actor, server).id if server else None,
        search=call.query.get("search", ""),
        **parameters.span(call),
        **parameters.window(call),
    )
    return shapes.listed(found, shapes.event)


def show_receipts_of_event(call: Call) -> Response:
    """Show which servers obey what an event changed"""
    return JSONResponse(shapes.receipts(receipts.of_event(call.instance, call.actor, call.ids["event"])))


ENDPOINTS = (
    Endpoint("GET", "/events", list_events, "events:read"),
    Endpoint("GET", "/events/{event}/receipts", show_receipts_of_event, "servers:read"),
)
