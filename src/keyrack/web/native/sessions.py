"""Keyrack's own API: who is logged in on a server; must hold no rule of its own."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from keyrack.core.hosts import sessions
from keyrack.web.api import Call, Endpoint
from keyrack.web.native import parameters, shapes


def list_sessions(call: Call) -> Response:
    """List who is logged in on a server"""
    found = sessions.find(call.instance, call.actor, parameters.server_id(call), **parameters.window(call))
    return shapes.listed(found, shapes.session)


def end_session(call: Call) -> Response:
    """End a session"""
    ended = sessions.end(call.instance, call.actor, parameters.server_id(call), call.ids["session"])
    return JSONResponse(shapes.session(ended), 202)


ENDPOINTS = (
    Endpoint("GET", "/servers/{server}/sessions", list_sessions, "sessions:read"),
    Endpoint("DELETE", "/servers/{server}/sessions/{session}", end_session, "sessions:write"),
)
