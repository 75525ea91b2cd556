"""Keyrack's own API: the audit log, and which servers obey what an event changed; must hold no rule of its own."""

from __future__ import annotations

from keyrack.core.audit import events
from keyrack.core.hosts import servers
from keyrack.core.keys import receipts
from keyrack.web.api import Call
from keyrack.web.native import shapes_audit as shapes
from keyrack.web.native import shapes_keys as keys
from keyrack.web.native.calls import endpoint


def list_events(call: Call, asked: shapes.EventsAsked) -> shapes.EventPage:
    """List the audit log, newest first"""
    found = events.find(
        call.instance,
        call.actor,
        server_id=servers.named(call.instance, call.actor, asked.server).id if asked.server else None,
        search=asked.search,
        person=asked.person,
        # A fingerprint holds no blank, but + is one in a query where it was not written as %2B.
        key=asked.key.replace(" ", "+"),
        **asked.span(),
        **asked.window(),
    )
    return shapes.EventPage.of(found, shapes.event)


def show_receipts_of_event(call: Call) -> keys.Receipts:
    """Show which servers obey what an event changed"""
    return keys.receipts(receipts.of_event(call.instance, call.actor, call.ids["event"]))


ENDPOINTS = (
    endpoint("GET", "/events", list_events, "events:read", asks=shapes.EventsAsked, answers=shapes.EventPage),
    endpoint("GET", "/events/{event}/receipts", show_receipts_of_event, "servers:read", answers=keys.Receipts),
)
