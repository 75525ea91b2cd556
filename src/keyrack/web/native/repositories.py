"""Keyrack's own API: repositories, and how each is protected; must hold no rule of its own."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from keyrack.core.git import repositories
from keyrack.web.api import Call, Endpoint
from keyrack.web.native import parameters, shapes


def show_repository(call: Call) -> Response:
    """Show a repository and how it is protected"""
    return JSONResponse(shapes.repository(repositories.get(call.instance, call.actor, call.ids["repository"])))


def change_repository(call: Call) -> Response:
    """Protect a repository's default branch, or change who may read it"""
    parameters.only(call, "protect_default", "visibility")
    changed = repositories.change(
        call.instance,
        call.actor,
        call.ids["repository"],
        visibility=call.body.get("visibility"),
        protect_default=call.body.get("protect_default"),
    )
    return JSONResponse(shapes.repository(changed))


ENDPOINTS = (
    Endpoint("GET", "/repositories/{repository}", show_repository, "codeartsrepo:repository:getRepository"),
    Endpoint("PATCH", "/repositories/{repository}", change_repository, "codeartsrepo:repository:setRepository"),
)
