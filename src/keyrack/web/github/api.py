"""GitHub's API for users and SSH keys: its routes, who calls, how it says no; must hold no rule of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from keyrack.errors import Kind, Refusal
from keyrack.web import bodies, forges
from keyrack.web.api import ORDINARY_STATUS, Dialect
from keyrack.web.github import shapes, user_keys, users
from keyrack.web.github.parameters import authenticate
from keyrack.web.shapes import Description

DOCUMENTATION = "https://docs.github.com/rest/users/keys"
STATUS = {**ORDINARY_STATUS, Kind.INVALID: 422, Kind.TAKEN: 422, Kind.LIMIT: 422}
MESSAGES = {
    401: "Bad credentials",
    403: "Forbidden",
    404: "Not Found",
    413: "Payload Too Large",
    422: "Validation Failed",
    429: "API rate limit exceeded",
    500: "Server Error",
    503: "Service Unavailable",
}
FIELDS = {"public_key": "key"}

ENDPOINTS = (*user_keys.ENDPOINTS, *users.ENDPOINTS)


def refuse(request: Request, refusal: Refusal) -> Response:
    """A refusal in GitHub's shape: `message`, with `errors` for fields, and Keyrack's words in `detail`."""
    status = STATUS[refusal.kind]
    if refusal.code == "scope-lacking":
        status = 404
    message = MESSAGES[status]
    if refusal.code == "no-credentials":
        message = "Requires authentication"
    if status == 422 and refusal.field is None and refusal.kind is Kind.INVALID:
        status, message = 400, "Problems parsing JSON"
    body: dict[str, Any] = {"message": message}
    if status == 422:
        body["errors"] = [_error(refusal)]
    if refusal.code != "scope-lacking":
        body["detail"] = refusal.message
    body |= {"documentation_url": DOCUMENTATION, "status": str(status)}
    return bodies.retried(JSONResponse(body, status), refusal)


def _error(refusal: Refusal) -> dict[str, str]:
    field = FIELDS.get(refusal.field or "", refusal.field or "key")
    if refusal.code == "missing-field":
        return {"resource": "PublicKey", "code": "missing_field", "field": field}
    words = refusal.message
    if refusal.kind is Kind.TAKEN:
        words = "key is already in use"
    elif field == "key" and refusal.kind is Kind.INVALID:
        words = f"key is invalid. {refusal.message}"
    return {"resource": "PublicKey", "code": "custom", "field": field, "message": words}


def unknown_path(request: Request) -> Response:
    """404 in GitHub's shape."""
    return JSONResponse({"message": "Not Found", "documentation_url": DOCUMENTATION, "status": "404"}, 404)


def not_supported(request: Request, methods: tuple[str, ...]) -> Response:
    """405 in GitHub's shape."""
    body = {"message": "Method Not Allowed", "documentation_url": DOCUMENTATION, "status": "405"}
    return JSONResponse(body, 405, headers={"Allow": ", ".join(methods)})


DIALECT = Dialect(
    name="github",
    endpoints=ENDPOINTS,
    authenticate=authenticate,
    refuse=refuse,
    unknown_path=unknown_path,
    not_supported=not_supported,
    read_body=forges.fields,
    described=Description(
        title="GitHub's API: users and their SSH keys",
        scheme={"type": "http", "scheme": "bearer"},
        schemas=shapes.SCHEMAS,
        shapes=shapes.SHAPES,
        error="github.Error",
        refuses_pages=False,
    ),
    shows_quota=True,
    shows_reset=True,
)


def _below(path: str) -> Dialect:
    """The dialect with only the calls below a path, to be mounted at it, as other paths belong to another API."""
    calls = [call for call in ENDPOINTS if call.path == path or call.path.startswith(path + "/")]
    return replace(DIALECT, endpoints=tuple(replace(call, path=call.path.removeprefix(path)) for call in calls))


# GitHub Enterprise's API is at /api/v3, as RunCloud's is; RunCloud has no calls below these two paths.
OWN = _below("/user")
OTHERS = _below("/users")
