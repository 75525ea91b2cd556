"""Keyrack's own API: API tokens; must hold no rule of its own, and never shows a token itself."""

from __future__ import annotations

from keyrack.core.people import tokens
from keyrack.web.api import Call
from keyrack.web.native import shapes_people as shapes
from keyrack.web.native.calls import endpoint
from keyrack.web.native.shapes import Window


def list_tokens(call: Call, asked: Window) -> shapes.TokenPage:
    """List API tokens, oldest first; never the tokens themselves"""
    return shapes.TokenPage.of(tokens.find(call.instance, call.actor, **asked.window()), shapes.token)


def revoke_token(call: Call) -> None:
    """Revoke an API token"""
    tokens.revoke_id(call.instance, call.actor, call.ids["token"])


ENDPOINTS = (
    endpoint("GET", "/tokens", list_tokens, "people:read", asks=Window, answers=shapes.TokenPage),
    endpoint("DELETE", "/tokens/{token}", revoke_token, "people:write"),
)
