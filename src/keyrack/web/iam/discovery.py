"""IAM (Keystone v3): the documents by which clients find the versions and APIs there are; must hold no rule."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from keyrack.core.instance import Instance
from keyrack.web.api import Call, Endpoint
from keyrack.web.iam import shapes


def show_version(call: Call) -> Response:
    """Show the version of this API, as Keystone clients ask for it"""
    return JSONResponse({"version": shapes.version(call.instance)})


def show_catalog(call: Call) -> Response:
    """Show the catalog of APIs with their URLs"""
    return JSONResponse(
        {"catalog": shapes.api_catalog(call.instance), "links": {"self": f"{call.instance.settings.url}/v3"}}
    )


def asks_for_versions(request: Request) -> bool:
    """Whether a request for the root comes from a program that looks for IAM, rather than from a browser."""
    accept = request.headers.get("accept", "")
    return "application/json" in accept and "text/html" not in accept


def versions(instance: Instance) -> Response:
    """GET /: the versions there are, as Keystone names them with its 300."""
    return JSONResponse({"versions": {"values": [shapes.version(instance)]}}, 300)


VERSION_ENDPOINTS = (Endpoint("GET", "/", show_version, open=True),)
CATALOG_ENDPOINTS = (Endpoint("GET", "/auth/catalog", show_catalog),)
