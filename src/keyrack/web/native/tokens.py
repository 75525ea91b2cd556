"""Keyrack's own API: API tokens; must hold no rule of its own, and never shows a token itself."""

from __future__ import annotations

from starlette.responses import Response

from keyrack.core.people import tokens
from keyrack.web.api import Call, Endpoint
from keyrack.web.native import parameters, shapes


def list_tokens(call: Call) -> Response:
    """List API tokens, oldest first; never the tokens themselves"""
    return shapes.listed(tokens.find(call.instance, call.actor, **parameters.window(call)), shapes.token)


def revoke_token(call: Call) -> Response:
    """Revoke an API token"""
    tokens.revoke_id(call.instance, call.actor, call.ids["token"])
    return Response(status_code=204)


ENDPOINTS = (
    Endpoint("GET", "/tokens", list_tokens, "people:read"),
    Endpoint("DELETE", "/tokens/{token}", revoke_token, "people:write"),
)
