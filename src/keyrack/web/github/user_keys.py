"""GitHub's API: a user's own SSH keys; reads, calls the core, shows; must hold no rule."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from keyrack.core.keys import last_uses, user_keys
from keyrack.errors import invalid, missing
from keyrack.web import forges
from keyrack.web.api import Call, Endpoint
from keyrack.web.github import parameters, shapes


def list_own_keys(call: Call) -> Response:
    """List your own SSH keys by pages, newest first"""
    page, size = parameters.window(call)
    piece = user_keys.find_keyed(call.instance, call.actor, offset=(page - 1) * size, limit=size)
    used = last_uses.newest(call.instance, call.actor, piece.items)
    return parameters.paged(call, [shapes.own_key(call, key, used) for key in piece.items], piece.total)


def show_own_key(call: Call) -> Response:
    """Show an SSH key of your own"""
    key = user_keys.get(call.instance, call.actor, call.ids["key_id"])
    if key.public_key is None:
        raise missing("SSH key")
    used = last_uses.newest(call.instance, call.actor, [key])
    return forges.answered(call, shapes.own_key(call, key, used))


def add_own_key(call: Call) -> Response:
    """Register an SSH key of your own"""
    sent = call.body.get("key")
    if sent is None:
        raise invalid("public_key", "A key is needed: one line of an OpenSSH public key file.", "missing-field")
    title = call.body.get("title")
    key = user_keys.add(call.instance, call.actor, title=None if title == "" else title, public_key=sent)
    shown = shapes.own_key(call, key)
    return JSONResponse(shown, 201, headers={"Location": shown["url"]})


def delete_own_key(call: Call) -> Response:
    """Delete an SSH key of your own, on all servers and repositories that it opened as yours"""
    user_keys.delete(call.instance, call.actor, call.ids["key_id"])
    return Response(status_code=204)


ENDPOINTS = (
    Endpoint("GET", "/user/keys", list_own_keys, on_event_loop=True),
    Endpoint("GET", "/user/keys/{key_id}", show_own_key, on_event_loop=True),
    Endpoint("POST", "/user/keys", add_own_key),
    Endpoint("DELETE", "/user/keys/{key_id}", delete_own_key),
)
