"""GitHub's API: the caller, other users and their public keys; reads, calls the core, shows; must hold no rule."""

from __future__ import annotations

from starlette.responses import Response

from keyrack.core.keys import published_keys
from keyrack.core.keys.published_keys import Published
from keyrack.core.people import users
from keyrack.web import forges
from keyrack.web.api import Call, Endpoint
from keyrack.web.github import parameters, shapes


def show_myself(call: Call) -> Response:
    """Show the user whose token it is"""
    return forges.answered(call, shapes.user(call, users.myself(call.instance, call.actor)))


def show_user(call: Call) -> Response:
    """Show a user by name"""
    return forges.answered(call, shapes.user(call, _named(call).user))


def list_keys(call: Call) -> Response:
    """List the SSH keys of a user, which are public"""
    published = _named(call)
    page, size = parameters.window(call)
    part = published.keys[(page - 1) * size : page * size]
    return parameters.paged(call, [shapes.key(key) for key in part], len(published.keys))


def _named(call: Call) -> Published:
    """The user of a path with the keys. Raises Refusal."""
    return published_keys.of_user(call.instance, parameters.caller(call), name=call.path["login"])


ENDPOINTS = (
    Endpoint("GET", "/user", show_myself, on_event_loop=True),
    Endpoint("GET", "/users/{login}", show_user, open=True),
    Endpoint("GET", "/users/{login}/keys", list_keys, open=True),
)
