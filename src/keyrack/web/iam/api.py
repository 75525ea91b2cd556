"""IAM (Keystone v3): its routes, who calls, how it says no; must hold no rule of its own."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from keyrack.errors import Kind, Refusal
from keyrack.web import bodies
from keyrack.web.api import ORDINARY_STATUS, Dialect
from keyrack.web.iam import access_keys, authentication, directory, discovery, shapes, tokens
from keyrack.web.shapes import Description

STATUS = {**ORDINARY_STATUS, Kind.INVALID: 400, Kind.TAKEN: 409, Kind.LIMIT: 400}

# IAM's own words for what the core refuses by these codes.
WORDS = {"access-keys-exhausted": "akSkNumExceed"}

V3_ENDPOINTS = (
    *discovery.VERSION_ENDPOINTS,
    *tokens.ENDPOINTS,
    *discovery.CATALOG_ENDPOINTS,
    *directory.V3_ENDPOINTS,
)


def refuse(request: Request, refusal: Refusal) -> Response:
    """A refusal in Keystone's three fields, or in the gateway's shape where the gateway refuses."""
    gateway = authentication.gateway_refusal(request, refusal)
    if gateway is not None:
        return gateway
    return bodies.retried(error(STATUS[refusal.kind], WORDS.get(refusal.code, refusal.message)), refusal)


def unknown_path(request: Request) -> Response:
    """404 in Keystone's shape."""
    return error(404, "There is no such API.")


def not_supported(request: Request, methods: tuple[str, ...]) -> Response:
    """405 in Keystone's shape."""
    response = error(405, f"{request.method} is not supported here; supported: {', '.join(methods)}.")
    response.headers["Allow"] = ", ".join(methods)
    return response


def error(status: int, message: str) -> Response:
    """An error in Keystone's three fields; the SDKs cannot unpack the variant with five."""
    title = HTTPStatus(status).phrase
    return JSONResponse({"error": {"code": status, "message": message, "title": title}}, status)


V3 = Dialect(
    name="iam",
    endpoints=V3_ENDPOINTS,
    authenticate=partial(authentication.authenticate, channel="iam"),
    refuse=refuse,
    unknown_path=unknown_path,
    not_supported=not_supported,
    read_body=bodies.read_json,
    described=Description(
        title="IAM: tokens and access keys",
        scheme={"type": "apiKey", "in": "header", "name": "X-Auth-Token"},
        schemas=shapes.SCHEMAS,
        shapes=shapes.SHAPES,
        error="iam.Error",
        gateway="codearts.Error",
    ),
)
V3_0 = replace(V3, endpoints=access_keys.ENDPOINTS)
V5 = replace(V3, endpoints=directory.V5_ENDPOINTS)
