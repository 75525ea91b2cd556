"""Keyrack's own API: servers, their status, and enrolment of their hosts; must hold no rule of its own."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from keyrack.core.hosts import deleted_servers, modes, servers
from keyrack.web.api import Call, Endpoint
from keyrack.web.native import parameters, shapes


def list_servers(call: Call) -> Response:
    """List servers, each with its status"""
    found = servers.find(call.instance, call.actor, search=call.query.get("search", ""), **parameters.window(call))
    return shapes.listed(found, lambda server: shapes.server(call.instance, server))


def show_server(call: Call) -> Response:
    """Show a server with its status"""
    return JSONResponse(shapes.server(call.instance, parameters.server(call)))


def list_deleted_servers(call: Call) -> Response:
    """List deleted servers that had a host, each with when the host said that no key of Keyrack opens it any more"""
    return shapes.listed(
        deleted_servers.find(call.instance, call.actor, **parameters.window(call)), shapes.deleted_server
    )


def change_server(call: Call) -> Response:
    """Set the mode of a host: observe or enforce"""
    parameters.only(call, "mode")
    server = modes.set_mode(call.instance, call.actor, parameters.server_id(call), call.body.get("mode"))
    return JSONResponse(shapes.server(call.instance, server))


def set_offline_policy_of_server(call: Call) -> Response:
    """Set a host's offline policy: what it does while it cannot reach the service"""
    return _set_offline_policy(call, server_id=parameters.server_id(call))


def set_offline_policy_of_tag(call: Call) -> Response:
    """Set the offline policy of all hosts with a tag"""
    return _set_offline_policy(call, tag=call.path["tag"])


def enrol(call: Call) -> Response:
    """Make the command line that enrols a host, with a one-time token"""
    line = servers.installation_line(call.instance, call.actor, parameters.server_id(call))
    return JSONResponse({"line": line}, 201)


ENDPOINTS = (
    Endpoint("GET", "/servers", list_servers, "servers:read"),
    Endpoint("GET", "/servers/{server}", show_server, "servers:read"),
    Endpoint("GET", "/deleted-servers", list_deleted_servers, "servers:read"),
    Endpoint("PATCH", "/servers/{server}", change_server, "servers:write"),
    Endpoint("PUT", "/servers/{server}/offline-policy", set_offline_policy_of_server, "servers:write"),
    Endpoint("PUT", "/tags/{tag}/offline-policy", set_offline_policy_of_tag, "servers:write"),
    Endpoint("POST", "/servers/{server}/enrolments", enrol, "servers:write"),
)


def _set_offline_policy(call: Call, *, server_id: int | None = None, tag: str | None = None) -> Response:
    parameters.only(call, "after_seconds", "then")
    changed = modes.set_offline_policy(
        call.instance,
        call.actor,
        after_seconds=call.body.get("after_seconds"),
        then=call.body.get("then"),
        server_id=server_id,
        tag=tag,
    )
    return JSONResponse({"items": [shapes.server(call.instance, server) for server in changed]})
