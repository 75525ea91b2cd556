"""GitHub's API: the caller, other users and their public keys; reads, calls the core, shows; must hold no rule."""

from __future__ import annotations

from starlette.responses import Response

from keyrack.core.keys import last_uses, published_keys
from keyrack.core.keys.published_keys import Published
from keyrack.core.people import users
from keyrack.model import Actor
from keyrack.web import forges
from keyrack.web.api import Call, Endpoint
from keyrack.web.github import parameters, shapes


def show_myself(call: Call) -> Response:
    """Show the user of the token"""
    return forges.answered(call, shapes.user(call, users.myself(call.instance, call.actor)))


def show_user(call: Call) -> Response:
    """Show a user by name"""
    return forges.answered(call, shapes.user(call, _named(call, parameters.caller(call)).user))


def list_keys(call: Call) -> Response:
    """List the SSH keys of a user, which are public"""
    actor = parameters.caller(call)
    published = _named(call, actor)
    page, size = parameters.window(call)
    part = published.keys[(page - 1) * size : page * size]
    used = last_uses.newest_if_told(call.instance, actor, part)
    return parameters.paged(call, [shapes.key(key, used) for key in part], len(published.keys))


def _named(call: Call, actor: Actor) -> Published:
    """The user that the path names, with their keys. Raises Refusal."""
    return published_keys.of_user(call.instance, actor, name=call.path["login"])


ENDPOINTS = (
    Endpoint("GET", "/user", show_myself, on_event_loop=True),
    Endpoint("GET", "/users/{login}", show_user, open=True),
    Endpoint("GET", "/users/{login}/keys", list_keys, open=True),
)
