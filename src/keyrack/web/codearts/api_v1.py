"""CodeArts Repo v1 and v2: their routes, who calls, how they say no; must hold no rule of their own."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from keyrack.errors import Kind, Refusal
from keyrack.web import bodies
from keyrack.web.api import Dialect
from keyrack.web.codearts import deploy_keys_v1, members_v1, repositories_v1, user_keys_v1
from keyrack.web.codearts.api import DESCRIBED
from keyrack.web.codearts.refusals import SPELLINGS, UNKNOWN_API, status_and_code, words
from keyrack.web.iam import authentication

EMPTY_OR_KNOWN = "CH.080002"
KEY_NOT_VALID = "40"
OF_DEPLOY_KEYS = re.compile("/deploy[_-]keys(/|$)")

V1_ENDPOINTS = (
    *user_keys_v1.ENDPOINTS,
    *deploy_keys_v1.V1_ENDPOINTS,
    *repositories_v1.V1_ENDPOINTS,
    *members_v1.ENDPOINTS,
)
V2_ENDPOINTS = (
    *deploy_keys_v1.V2_ENDPOINTS,
    *repositories_v1.V2_ENDPOINTS,
)


def refuse(request: Request, refusal: Refusal) -> Response:
    """A refusal in v1's and v2's envelope, or in the gateway's shape where the gateway refuses."""
    gateway = authentication.gateway_refusal(request, refusal)
    if gateway is not None:
        return gateway
    status, code = status_and_code(refusal)
    if refusal.code == "empty":
        code = EMPTY_OR_KNOWN
    elif refusal.kind is Kind.INVALID and refusal.field == "public_key" and "/users/sshkey" in request.url.path:
        code = KEY_NOT_VALID
    of_deploy_key = OF_DEPLOY_KEYS.search(request.url.path) is not None
    spellings = deploy_keys_v1.SPELLINGS if of_deploy_key else SPELLINGS
    return bodies.retried(_failed(status, code, words(refusal, spellings)), refusal)


def unknown_path(request: Request) -> Response:
    """404 in v1's and v2's envelope."""
    return _failed(404, "CH.000404", UNKNOWN_API)


def not_supported(request: Request, methods: tuple[str, ...]) -> Response:
    """405 in v1's and v2's envelope."""
    supported = ", ".join(methods)
    response = _failed(405, "CH.010001", f"{request.method} is not supported here; supported: {supported}.")
    response.headers["Allow"] = supported
    return response


V1 = Dialect(
    name="codearts",
    endpoints=V1_ENDPOINTS,
    authenticate=partial(authentication.authenticate, channel="codearts"),
    refuse=refuse,
    unknown_path=unknown_path,
    not_supported=not_supported,
    read_body=bodies.read_json,
    described=replace(DESCRIBED, error="codearts.ErrorOfV1", gateway=DESCRIBED.error),
)
V2 = replace(V1, endpoints=V2_ENDPOINTS)


def _failed(status: int, code: str, message: str) -> Response:
    return JSONResponse({"error": {"code": code, "message": message}, "status": "failed"}, status)
