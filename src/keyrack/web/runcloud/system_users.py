"""RunCloud's system users of a server; reads, calls the core, shows; must hold no rule of its own."""

from __future__ import annotations

from functools import partial

from starlette.responses import JSONResponse, Response

from keyrack.core.hosts import system_users
from keyrack.web.api import Call, Endpoint
from keyrack.web.runcloud import shapes
from keyrack.web.runcloud.grammar import Fields, listed, window

# RunCloud answers with the key; the host has to make it, so the call waits for that, so many seconds at most.
DEPLOYMENT_KEY_SECONDS = 8.0


def list_system_users(call: Call) -> Response:
    """List a server's system users, the accounts that keys can open"""
    search = call.query.get("search", "")
    page = system_users.find(call.instance, call.actor, call.ids["serverId"], search=search, **window(call))
    return listed(call, page, shapes.system_user)


def create_system_user(call: Call) -> Response:
    """Add a system user to a server; the host creates its account if there is none"""
    fields = Fields(call)
    username = fields.text("username")
    password = fields.text_or_none("password")
    create = partial(system_users.create, call.instance, call.actor, call.ids["serverId"])
    user = fields.through(
        partial(create, username=username, password=password),
        partial(system_users.wrong_fields, username=username or None, password=password),
    )
    return JSONResponse(shapes.system_user(user))


def show_system_user(call: Call) -> Response:
    """Show a system user"""
    user = system_users.get(call.instance, call.actor, call.ids["serverId"], call.ids["userId"])
    return JSONResponse(shapes.system_user(user))


def set_password(call: Call) -> Response:
    """Set the password of a system user's account"""
    fields = Fields(call)
    password = fields.text("password")
    fields.check()
    user = system_users.set_password(
        call.instance, call.actor, call.ids["serverId"], call.ids["userId"], password=password
    )
    return JSONResponse(shapes.system_user(user))


def make_deployment_key(call: Call) -> Response:
    """Have the host make a key pair for a system user, and show the public key"""
    user = system_users.ask_deployment_key(call.instance, call.actor, call.ids["serverId"], call.ids["userId"])
    user = system_users.wait_for_deployment_key(call.instance, user, seconds=DEPLOYMENT_KEY_SECONDS)
    return JSONResponse(shapes.system_user(user))


def delete_system_user(call: Call) -> Response:
    """Delete a system user with all its keys"""
    user = system_users.delete(call.instance, call.actor, call.ids["serverId"], call.ids["userId"])
    return JSONResponse(shapes.system_user(user))


PATH = "/servers/{serverId}/users"
ENDPOINTS = (
    Endpoint("GET", PATH, list_system_users, "systemusers:read", on_event_loop=True),
    Endpoint("POST", PATH, create_system_user, "systemusers:write", hashes=True),
    Endpoint("GET", PATH + "/{userId}", show_system_user, "systemusers:read", on_event_loop=True),
    Endpoint("PATCH", PATH + "/{userId}/password", set_password, "systemusers:write", hashes=True),
    Endpoint("PATCH", PATH + "/{userId}/deploymentkey", make_deployment_key, "systemusers:write"),
    Endpoint("DELETE", PATH + "/{userId}", delete_system_user, "systemusers:write"),
)
