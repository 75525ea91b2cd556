"""GitLab's API: the caller, other users and their SSH keys; reads, calls the core, shows; must hold no rule."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from keyrack.core.keys import last_uses, published_keys, user_keys
from keyrack.core.keys.published_keys import Published
from keyrack.core.people import named_people, users
from keyrack.errors import Kind, Refusal, missing
from keyrack.model import Actor
from keyrack.web import forges
from keyrack.web.api import Call, Endpoint
from keyrack.web.gitlab import parameters, shapes


def show_myself(call: Call) -> Response:
    """Show the user of the token"""
    return forges.answered(call, shapes.user(call.instance, users.myself(call.instance, call.actor)))


def find_users(call: Call) -> Response:
    """Find a user by name, or list the workspace's users, those whose names contain `search`"""
    name, search = call.query.get("username"), call.query.get("search", "")
    actor = parameters.caller(call)
    page, size = parameters.window(call)
    if not name:
        found = named_people.find(call.instance, actor, search=search, offset=(page - 1) * size, limit=size)
        return parameters.paged(call, [shapes.user(call.instance, user) for user in found.items], found.total)
    try:
        matching = [published_keys.of_user(call.instance, actor, name=name).user]
    except Refusal as refusal:
        if refusal.kind is not Kind.MISSING:
            raise
        matching = []
    part = matching[(page - 1) * size : page * size]
    return parameters.paged(call, [shapes.user(call.instance, user) for user in part], len(matching))


def show_user(call: Call) -> Response:
    """Show a user of the workspace"""
    return forges.answered(call, shapes.user(call.instance, _named(call, parameters.caller(call)).user))


def list_keys(call: Call) -> Response:
    """List the SSH keys of a user, which are public"""
    actor = parameters.caller(call)
    published = _named(call, actor)
    page, size = parameters.window(call)
    part = published.keys[(page - 1) * size : page * size]
    used = last_uses.newest_if_told(call.instance, actor, part)
    shown = [shapes.key(call.instance, key, published.user.name, used) for key in part]
    return parameters.paged(call, shown, len(published.keys))


def show_key(call: Call) -> Response:
    """Show an SSH key of a user"""
    actor = parameters.caller(call)
    published = _named(call, actor)
    for key in published.keys:
        if key.id == call.ids["key_id"]:
            used = last_uses.newest_if_told(call.instance, actor, [key])
            return forges.answered(call, shapes.key(call.instance, key, published.user.name, used))
    raise missing("SSH key")


def add_key(call: Call) -> Response:
    """Register an SSH key for another user, as an administrator"""
    new = parameters.new_key(call)
    key = user_keys.add(
        call.instance,
        call.actor,
        title=new.title,
        public_key=new.key,
        user_id=call.ids["user"],
        expires_at=new.expires_at,
    )
    # Shown without a further check of rights: a refusal would say that the key is not registered, which it is.
    return JSONResponse(shapes.key(call.instance, key, user_keys.owner_name(call.instance, key)), 201)


def delete_key(call: Call) -> Response:
    """Delete another user's SSH key, as an administrator, on all servers and repositories that it opened as theirs"""
    user_keys.delete(call.instance, call.actor, call.ids["key_id"], user_id=call.ids["user"])
    return Response(status_code=204)


def _named(call: Call, actor: Actor) -> Published:
    """The user that the path names, by id or name, with their keys. Raises Refusal."""
    user_id = call.ids["user"] or None
    return published_keys.of_user(call.instance, actor, name=call.path["user"], user_id=user_id)


ENDPOINTS = (
    Endpoint("GET", "/user", show_myself, on_event_loop=True),
    Endpoint("GET", "/users", find_users, open=True),
    Endpoint("GET", "/users/{user}", show_user, open=True),
    Endpoint("GET", "/users/{user}/keys", list_keys, open=True),
    Endpoint("GET", "/users/{user}/keys/{key_id}", show_key, open=True),
    Endpoint("POST", "/users/{user}/keys", add_key),
    Endpoint("DELETE", "/users/{user}/keys/{key_id}", delete_key),
)
