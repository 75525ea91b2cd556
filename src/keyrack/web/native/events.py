"""Keyrack's own API: the audit log, its proofs, and which servers obey what an event changed; must hold no rule of its
own.
"""

from __future__ import annotations

from keyrack.core.audit import chain, events
from keyrack.core.keys import receipts
from keyrack.model import EventFilter
from keyrack.web.api import Call
from keyrack.web.native import shapes_audit as shapes
from keyrack.web.native import shapes_chain as chained
from keyrack.web.native import shapes_keys as keys
from keyrack.web.native.calls import endpoint


def list_events(call: Call, asked: shapes.EventsAsked) -> shapes.EventPage:
    """List the audit log, newest first"""
    sought = EventFilter(
        concerning=events.server_named(call.instance, call.actor, asked.server) if asked.server else None,
        search=asked.search,
        person=asked.person,
        key=asked.key,
        kind=asked.kind,
        **asked.span(),
    )
    page = events.find(call.instance, call.actor, sought, **asked.window())
    return shapes.EventPage.of(page, shapes.event)


def show_receipts_of_event(call: Call) -> keys.Receipts:
    """Show which servers have applied the change of an event"""
    return keys.receipts(receipts.of_event(call.instance, call.actor, call.ids["event"]))


def show_checkpoint(call: Call) -> chained.Checkpoint:
    """Show the last signed checkpoint of the audit log"""
    return chained.checkpoint(chain.checkpoint(call.instance, call.actor))


def prove_event(call: Call) -> chained.EventProof:
    """Prove that an event is in the audit log"""
    return chained.event_proof(chain.prove(call.instance, call.actor, call.ids["event"]))


def prove_consistency(call: Call, asked: chained.ConsistencyAsked) -> chained.Consistency:
    """Prove that the audit log at one size begins with the log at an earlier size"""
    path = chain.consistency(call.instance, call.actor, asked.first, asked.second)
    return chained.Consistency(first=asked.first, second=asked.second, proof=chained.hashes(path))


ENDPOINTS = (
    endpoint("GET", "/audit/checkpoint", show_checkpoint, "events:read", answers=chained.Checkpoint),
    endpoint("GET", "/audit/events/{event}/proof", prove_event, "events:read", answers=chained.EventProof),
    endpoint(
        "GET",
        "/audit/consistency",
        prove_consistency,
        "events:read",
        asks=chained.ConsistencyAsked,
        answers=chained.Consistency,
    ),
    endpoint("GET", "/events", list_events, "events:read", asks=shapes.EventsAsked, answers=shapes.EventPage),
    endpoint("GET", "/events/{event}/receipts", show_receipts_of_event, "servers:read", answers=keys.Receipts),
)
