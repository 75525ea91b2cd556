"""Keyrack's own API: what is held back on a host since the database went back; must hold no rule of its own."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from keyrack.core.hosts import resync
from keyrack.errors import invalid
from keyrack.web.api import Call, Endpoint
from keyrack.web.native import parameters, shapes


def show_resync(call: Call) -> Response:
    """Show what is held back on a host since the database went back to an older state"""
    return JSONResponse(shapes.difference(resync.difference(call.instance, call.actor, parameters.server_id(call))))


def decide_resync(call: Call) -> Response:
    """Decide on what is held back on a host: it stays refused, except for the fingerprints named"""
    parameters.only(call, "let_in", "accept_database")
    let_in = call.body.get("let_in", [])
    if not isinstance(let_in, list) or not all(isinstance(one, str) for one in let_in):
        raise invalid("let_in", "This takes a list of fingerprints.")
    accept = call.body.get("accept_database", False)
    if not isinstance(accept, bool):
        raise invalid("accept_database", "This is true or false.")
    decided = resync.decide(
        call.instance, call.actor, parameters.server_id(call), let_in=tuple(let_in), accept_database=accept
    )
    return JSONResponse(shapes.difference(decided))


ENDPOINTS = (
    Endpoint("GET", "/servers/{server}/resync", show_resync, "servers:read"),
    Endpoint("POST", "/servers/{server}/resync", decide_resync, "keys:revoke"),
)
