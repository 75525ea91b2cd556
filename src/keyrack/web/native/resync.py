"""Keyrack's own API: what is held back on a host since the database went back; must hold no rule of its own."""

from __future__ import annotations

from keyrack.core.hosts import resync
from keyrack.web.api import Call
from keyrack.web.native import parameters
from keyrack.web.native import shapes_servers as shapes
from keyrack.web.native.calls import endpoint

PATH = "/servers/{server}/resync"


def list_waiting(call: Call) -> shapes.WaitingServers:
    """List the servers whose hosts are ahead of the database, which was set back to an older state"""
    waiting = resync.waiting(call.instance, call.actor)
    return shapes.WaitingServers(items=[shapes.WaitingServer(server=one.name, server_id=one.id) for one in waiting])


def show_resync(call: Call, asked: shapes.DifferenceAsked) -> shapes.Difference:
    """Show what is held back on a host since the database was set back to an older state"""
    difference = resync.difference(
        call.instance, call.actor, parameters.server_id(call), cursor=asked.cursor, limit=asked.per_page
    )
    return shapes.difference(difference)


def decide_resync(call: Call, decision: shapes.ResyncDecision) -> shapes.Difference:
    """Decide what is held back on a host: all stays refused except the keys with the given fingerprints"""
    decided = resync.decide(
        call.instance,
        call.actor,
        parameters.server_id(call),
        let_in=tuple(decision.let_in),
        accept_database=decision.accept_database,
    )
    return shapes.difference(decided)


ENDPOINTS = (
    endpoint("GET", "/resync", list_waiting, "servers:read", answers=shapes.WaitingServers),
    endpoint("GET", PATH, show_resync, "servers:read", asks=shapes.DifferenceAsked, answers=shapes.Difference),
    endpoint("POST", PATH, decide_resync, "keys:revoke", takes=shapes.ResyncDecision, answers=shapes.Difference),
)
