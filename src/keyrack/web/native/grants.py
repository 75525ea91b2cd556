"""Keyrack's own API: grants, which let users and groups log in; must hold no rule of its own."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from keyrack.core.keys import grants
from keyrack.web.api import Call, Endpoint
from keyrack.web.native import parameters, shapes


def list_grants(call: Call) -> Response:
    """List who may log in where, oldest first"""
    found = grants.page(call.instance, call.actor, **parameters.window(call))
    return shapes.listed(found, lambda grant: shapes.grant(grant, grants.names(call.instance, call.actor, found.items)))


def give_grant(call: Call) -> Response:
    """Let a user or a group log in as a system user on a server, or on servers with a tag"""
    parameters.only(call, "user", "group", "server", "tag", "system_user", "expires_at", "restrictions")
    given = grants.give_named(
        call.instance,
        call.actor,
        **{name: call.body.get(name) for name in ("user", "group", "server", "tag")},
        system_user=call.body.get("system_user"),
        expires_at=parameters.moment(call, "expires_at"),
        restrictions=call.body.get("restrictions"),
    )
    return JSONResponse(shapes.grant(given, grants.names(call.instance, call.actor, (given,), written=True)), 201)


def take_back_grant(call: Call) -> Response:
    """End a grant"""
    grants.take_back(call.instance, call.actor, call.ids["grant"])
    return Response(status_code=204)


ENDPOINTS = (
    Endpoint("GET", "/grants", list_grants, "grants:read"),
    Endpoint("POST", "/grants", give_grant, "grants:write"),
    Endpoint("DELETE", "/grants/{grant}", take_back_grant, "grants:write"),
)
