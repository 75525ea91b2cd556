"""GitLab's API: any key of the workspace by id or fingerprint, for administrators; must hold no rule."""

from __future__ import annotations

from starlette.responses import Response

from keyrack.core.keys import last_uses, published_keys
from keyrack.web import forges
from keyrack.web.api import Call, Endpoint
from keyrack.web.gitlab import shapes
from keyrack.web.gitlab.parameters import InvalidParameter


def find_key(call: Call) -> Response:
    """Find a key by its fingerprint, with its user"""
    fingerprint = call.query.get("fingerprint")
    if fingerprint is None:
        raise InvalidParameter("fingerprint is missing")
    # A + of base64 that was not encoded arrives as a space.
    key, user = published_keys.by_fingerprint(call.instance, call.actor, fingerprint.replace(" ", "+"))
    used = last_uses.newest(call.instance, call.actor, [key])
    return forges.answered(call, shapes.key_with_user(call.instance, key, user, used))


def show_key_of_anybody(call: Call) -> Response:
    """Show any key of the workspace, with its user"""
    key, user = published_keys.by_id(call.instance, call.actor, call.ids["key_id"])
    used = last_uses.newest(call.instance, call.actor, [key])
    return forges.answered(call, shapes.key_with_user(call.instance, key, user, used))


ENDPOINTS = (
    Endpoint("GET", "/keys", find_key),
    Endpoint("GET", "/keys/{key_id}", show_key_of_anybody),
)
