"""Keyrack's own API: the keys on a server; must hold no rule of its own."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from keyrack.core.keys import credentials, last_uses
from keyrack.errors import invalid
from keyrack.web.api import Call, Endpoint
from keyrack.web.native import parameters, shapes


def list_credentials(call: Call) -> Response:
    """List the keys on a server, oldest first, each with its last use there"""
    server_id = parameters.server_id(call)
    search = call.query.get("search", "")
    found = credentials.find(call.instance, call.actor, server_id, search=search, **parameters.window(call))
    used = last_uses.on_server(call.instance, call.actor, server_id, [one.fingerprint for one in found.items])
    return shapes.listed(found, lambda one: shapes.listed_credential(one, used.get(one.fingerprint, ())))


def add_credential(call: Call) -> Response:
    """Put a key on a system user of a server, with an end and restrictions if wanted"""
    server_id = parameters.server_id(call)
    credentials.check_server(call.instance, call.actor, server_id)
    parameters.only(call, "label", "username", "public_key", "temporary", "expires_at", "restrictions")
    temporary = call.body.get("temporary", False)
    if not isinstance(temporary, bool):
        raise invalid("temporary", "temporary takes true or false.")
    made = credentials.add(
        call.instance,
        call.actor,
        server_id,
        label=call.body.get("label"),
        username=call.body.get("username"),
        public_key=call.body.get("public_key"),
        temporary=temporary,
        expires_at=parameters.moment(call, "expires_at"),
        restrictions=call.body.get("restrictions"),
    )
    return JSONResponse(shapes.listed_credential(made, ()), 201)


def delete_credential(call: Call) -> Response:
    """Take a key from a server"""
    credentials.delete(call.instance, call.actor, parameters.server_id(call), call.ids["credential"])
    return Response(status_code=204)


ENDPOINTS = (
    Endpoint("GET", "/servers/{server}/credentials", list_credentials, "credentials:read"),
    Endpoint("POST", "/servers/{server}/credentials", add_credential, "credentials:write"),
    Endpoint("DELETE", "/servers/{server}/credentials/{credential}", delete_credential, "credentials:write"),
)
