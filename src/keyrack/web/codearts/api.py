"""CodeArts Repo v4: its routes, who calls, how it says no; must hold no rule of its own."""

from __future__ import annotations

import re
from functools import partial

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from keyrack.errors import Kind, Refusal
from keyrack.web import bodies
from keyrack.web.api import Dialect
from keyrack.web.codearts import deploy_keys, members, repositories, shapes, user_keys
from keyrack.web.codearts.refusals import NOT_IN_FORCE, UNKNOWN_API, status_and_code, words
from keyrack.web.iam import authentication
from keyrack.web.shapes import Description

# CodeArts documents other codes for repositories and deploy keys than for the rest.
OF_REPOSITORIES = re.compile(r"/v4/(repositories|groups|projects)/.*")
OF_DEPLOY_KEYS = re.compile(r"/v4/(repositories|groups|projects)/[^/]*/deploy-keys(/[^/]*)?/?")
UNRECOGNISED = "CH.00000002"
NO_ACCESS = "CH.00401001"
NO_REPOSITORY = "CH.00402000"

ENDPOINTS = (
    *user_keys.ENDPOINTS,
    *repositories.ENDPOINTS,
    *members.ENDPOINTS,
    *deploy_keys.ENDPOINTS,
)


def refuse(request: Request, refusal: Refusal) -> Response:
    """A refusal in v4's shape, or in the gateway's where the gateway refuses."""
    gateway = authentication.gateway_refusal(request, refusal)
    if gateway is not None:
        return gateway
    status, code = status_and_code(refusal)
    path = request.url.path
    if refusal.code == "repository-missing":
        code = NO_REPOSITORY
    elif refusal.kind is Kind.FORBIDDEN and OF_REPOSITORIES.fullmatch(path):
        code = NO_ACCESS
    elif refusal.code == NOT_IN_FORCE and OF_DEPLOY_KEYS.fullmatch(path):
        code = UNRECOGNISED
    return bodies.retried(JSONResponse({"error_code": code, "error_msg": words(refusal)}, status), refusal)


def unknown_path(request: Request) -> Response:
    """404 in v4's shape."""
    return JSONResponse({"error_code": "CH.000404", "error_msg": UNKNOWN_API}, 404)


def not_supported(request: Request, methods: tuple[str, ...]) -> Response:
    """405 in v4's shape."""
    said = f"{request.method} is not supported here; supported: {', '.join(methods)}."
    return JSONResponse({"error_code": "CH.010001", "error_msg": said}, 405, headers={"Allow": ", ".join(methods)})


DESCRIBED = Description(
    title="CodeArts Repo: your own SSH keys, for servers and Git",
    scheme={"type": "apiKey", "in": "header", "name": "X-Auth-Token"},
    schemas=shapes.SCHEMAS,
    shapes=shapes.SHAPES,
    error="codearts.Error",
)

DIALECT = Dialect(
    name="codearts",
    endpoints=ENDPOINTS,
    authenticate=partial(authentication.authenticate, channel="codearts"),
    refuse=refuse,
    unknown_path=unknown_path,
    not_supported=not_supported,
    read_body=bodies.read_json,
    described=DESCRIBED,
)
