"""Keyrack's own API: the keys of the workspace's users; must hold no rule of its own."""

from __future__ import annotations

from keyrack.core.keys import last_uses
from keyrack.web.api import Call
from keyrack.web.native import shapes_keys as shapes
from keyrack.web.native.calls import endpoint


def list_user_keys(call: Call, asked: shapes.UserKeysAsked) -> shapes.UserKeyPage:
    """List the keys of the workspace's users, newest first, each with its last uses"""
    found, names, used = last_uses.user_keys(call.instance, call.actor, user=asked.user, **asked.window())
    return shapes.UserKeyPage.of(found, lambda key: shapes.user_key(key, names, used.get(key.fingerprint or "", ())))


ENDPOINTS = (
    endpoint("GET", "/user-keys", list_user_keys, "people:read", asks=shapes.UserKeysAsked, answers=shapes.UserKeyPage),
)
