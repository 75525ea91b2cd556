"""Keyrack's own API: who is logged in on a server; must hold no rule of its own."""

from __future__ import annotations

from keyrack.core.hosts import sessions
from keyrack.web.api import Call
from keyrack.web.native import parameters
from keyrack.web.native import shapes_servers as shapes
from keyrack.web.native.calls import endpoint
from keyrack.web.native.shapes import Window


def list_sessions(call: Call, asked: Window) -> shapes.SessionPage:
    """List who is logged in on a server"""
    page = sessions.find(call.instance, call.actor, parameters.server_id(call), **asked.window())
    return shapes.SessionPage.of(page, shapes.session)


def show_session(call: Call) -> shapes.Session:
    """Show an open login on a server"""
    return shapes.session(sessions.get(call.instance, call.actor, parameters.server_id(call), call.ids["session"]))


def end_session(call: Call) -> shapes.Session:
    """Have a host end an open login"""
    return shapes.session(sessions.end(call.instance, call.actor, parameters.server_id(call), call.ids["session"]))


ENDPOINTS = (
    endpoint("GET", "/servers/{server}/sessions/{session}", show_session, "sessions:read", answers=shapes.Session),
    endpoint(
        "GET",
        "/servers/{server}/sessions",
        list_sessions,
        "sessions:read",
        asks=Window,
        answers=shapes.SessionPage,
    ),
    endpoint(
        "DELETE",
        "/servers/{server}/sessions/{session}",
        end_session,
        "sessions:write",
        answers=shapes.Session,
        status=202,
    ),
)
