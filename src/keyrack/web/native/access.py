"""Keyrack's own API: who can log in where, and why; must hold no rule of its own."""

from __future__ import annotations

from keyrack.core.keys import who_can
from keyrack.web.api import Call
from keyrack.web.native import shapes_access as shapes
from keyrack.web.native.calls import endpoint


def show_access(call: Call, asked: shapes.AccessAsked) -> shapes.Access:
    """Show who can log in on a server, or where a user can, and what opens it"""
    ways_in = who_can.find(
        call.instance,
        call.actor,
        server=asked.server,
        system_user=asked.system_user,
        user=asked.user,
        cursor=asked.cursor,
        limit=asked.per_page,
    )
    return shapes.access(ways_in)


ENDPOINTS = (endpoint("GET", "/access", show_access, "access:read", asks=shapes.AccessAsked, answers=shapes.Access),)
