"""Keyrack's own API: the keys of the workspace's users; must hold no rule of its own."""

from __future__ import annotations

from starlette.responses import Response

from keyrack.core.keys import last_uses
from keyrack.web.api import Call, Endpoint
from keyrack.web.native import parameters, shapes


def list_user_keys(call: Call) -> Response:
    """List the keys of the workspace's users, newest first, each with its last uses"""
    found, names, used = last_uses.user_keys(
        call.instance, call.actor, user=call.query.get("user"), **parameters.window(call)
    )
    return shapes.listed(found, lambda key: shapes.user_key(key, names, used.get(key.fingerprint or "", ())))


ENDPOINTS = (Endpoint("GET", "/user-keys", list_user_keys, "people:read"),)
