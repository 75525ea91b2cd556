"""Keyrack's own API: the system users of a server, by name; must hold no rule of its own."""

from __future__ import annotations

from keyrack.core.hosts import named_system_users, system_users
from keyrack.web.api import Call
from keyrack.web.native import parameters
from keyrack.web.native import shapes_servers as shapes
from keyrack.web.native.calls import endpoint
from keyrack.web.native.shapes import Search

PATH = "/servers/{server}/system-users"
ONE = PATH + "/{username}"


def list_system_users(call: Call, asked: Search) -> shapes.SystemUserPage:
    """List the system users of a server, the accounts that keys can open, oldest first"""
    server_id = parameters.server_id(call)
    page = system_users.find(call.instance, call.actor, server_id, search=asked.search, **asked.window())
    return shapes.SystemUserPage.of(page, shapes.system_user)


def show_system_user(call: Call) -> shapes.SystemUser:
    """Show a system user of a server"""
    server_id = parameters.server_id(call)
    return shapes.system_user(named_system_users.get(call.instance, call.actor, server_id, call.path["username"]))


def put_system_user(call: Call) -> shapes.SystemUser:
    """Make sure that a server has a system user; the host creates its account if there is none"""
    server_id = parameters.server_id(call)
    return shapes.system_user(named_system_users.put(call.instance, call.actor, server_id, call.path["username"]))


def delete_system_user(call: Call) -> None:
    """Delete a system user with its keys"""
    named_system_users.delete(call.instance, call.actor, parameters.server_id(call), call.path["username"])


_READ, _WRITE = "systemusers:read", "systemusers:write"
ENDPOINTS = (
    endpoint("GET", PATH, list_system_users, _READ, asks=Search, answers=shapes.SystemUserPage),
    endpoint("GET", ONE, show_system_user, _READ, answers=shapes.SystemUser),
    endpoint("PUT", ONE, put_system_user, _WRITE, answers=shapes.SystemUser),
    endpoint("DELETE", ONE, delete_system_user, _WRITE),
)
