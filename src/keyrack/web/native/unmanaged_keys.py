"""Keyrack's own API: keys on a host that Keyrack did not put there; must hold no rule of its own."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from keyrack.core.hosts import unmanaged_keys
from keyrack.errors import invalid
from keyrack.web.api import Call, Endpoint
from keyrack.web.native import parameters, shapes


def list_unmanaged_keys(call: Call) -> Response:
    """List a host's unmanaged keys, which Keyrack did not put there"""
    states = call.query.get("state", ",".join(unmanaged_keys.OPEN)).split(",")
    if not set(states) <= set(unmanaged_keys.STATES):
        raise invalid("state", f"It is one or several, with commas, of: {', '.join(unmanaged_keys.STATES)}.")
    found = unmanaged_keys.find(
        call.instance, call.actor, parameters.server_id(call), states=states, **parameters.window(call)
    )
    return shapes.listed(found, shapes.unmanaged_key)


def accept_unmanaged_key(call: Call) -> Response:
    """Make an unmanaged key a credential of its server"""
    parameters.only(call, "label", "username", "expires_at")
    made = unmanaged_keys.accept(
        call.instance,
        call.actor,
        parameters.server_id(call),
        call.ids["found"],
        label=call.body.get("label"),
        username=call.body.get("username"),
        expires_at=parameters.moment(call, "expires_at"),
    )
    return JSONResponse(shapes.credential(made), 201)


def ignore_unmanaged_key(call: Call) -> Response:
    """Ignore an unmanaged key: it stays where it is"""
    return JSONResponse(
        shapes.unmanaged_key(
            unmanaged_keys.ignore(call.instance, call.actor, parameters.server_id(call), call.ids["found"])
        )
    )


def remove_unmanaged_key(call: Call) -> Response:
    """Have the host remove an unmanaged key from its file"""
    asked = unmanaged_keys.remove(call.instance, call.actor, parameters.server_id(call), call.ids["found"])
    return JSONResponse(shapes.unmanaged_key(asked), 202)


ENDPOINTS = (
    Endpoint("GET", "/servers/{server}/unmanaged-keys", list_unmanaged_keys, "credentials:read"),
    Endpoint("POST", "/servers/{server}/unmanaged-keys/{found}/accept", accept_unmanaged_key, "credentials:write"),
    Endpoint("POST", "/servers/{server}/unmanaged-keys/{found}/ignore", ignore_unmanaged_key, "credentials:write"),
    Endpoint("POST", "/servers/{server}/unmanaged-keys/{found}/remove", remove_unmanaged_key, "credentials:write"),
)
