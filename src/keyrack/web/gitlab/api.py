"""GitLab's API v4 for users and SSH keys: its routes, who calls, how it says no; must hold no rule of its own."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from keyrack.errors import Kind, Refusal
from keyrack.web import bodies
from keyrack.web.api import ORDINARY_STATUS, Dialect
from keyrack.web.gitlab import keys, shapes, user_keys, users
from keyrack.web.gitlab.parameters import InvalidParameter, authenticate, fields
from keyrack.web.shapes import Description

STATUS = {**ORDINARY_STATUS, Kind.INVALID: 400, Kind.TAKEN: 400, Kind.LIMIT: 400}
MESSAGES = {
    401: "401 Unauthorized",
    403: "403 Forbidden",
    404: "404 Not Found",
    413: "413 Request Entity Too Large",
    429: "429 Too Many Requests",
    500: "500 Internal Server Error",
    503: "503 Service Unavailable",
}
MISSING = {"SSH-key-missing": "404 Key Not Found", "user-missing": "404 User Not Found"}

# GitLab's own words where it has some; Keyrack's stand beside them in `detail`.
INVALID_KEY = {
    "key": ["is invalid"],
    "fingerprint": ["cannot be generated"],
    "fingerprint_sha256": ["cannot be generated"],
}
OF_KEY: dict[str, dict[str, list[str]]] = {
    "past": {"key": ["has expired"]},
    "key-taken": {"fingerprint_sha256": ["has already been taken"]},
    "key-compromised": {
        "key": [
            "cannot be used because it belongs to a compromised private key. "
            "Stop using this key and generate a new one."
        ]
    },
}
WELL_FORMED = ("key-type-not-allowed", "key-too-short", "too-long", "key-revoked")
"""Codes of refusals of well-formed keys, for which Keyrack's words are shown."""

ENDPOINTS = (*user_keys.ENDPOINTS, *users.ENDPOINTS, *keys.ENDPOINTS)


def refuse(request: Request, refusal: Refusal) -> Response:
    """A refusal in GitLab's shape: `message`, or `error` for parameters, with Keyrack's words in `detail`."""
    status = STATUS[refusal.kind]
    body: dict[str, Any]
    if isinstance(refusal, InvalidParameter):
        body = {"error": refusal.message}
    elif status != 400:
        body = {"message": MISSING.get(refusal.code, MESSAGES[status])}
        if refusal.message not in body["message"]:
            body["detail"] = refusal.message
    elif refusal.code == "fingerprint-malformed":
        body = {"message": "400 Bad request - Failed to return the key", "detail": refusal.message}
    else:
        body = {"message": _message(refusal), "detail": refusal.message}
    return bodies.retried(JSONResponse(body, status), refusal)


def _message(refusal: Refusal) -> Any:
    if refusal.code in OF_KEY:
        return OF_KEY[refusal.code]
    if refusal.field == "public_key":
        return {"key": [refusal.message]} if refusal.code in WELL_FORMED else INVALID_KEY
    return {refusal.field or "base": [refusal.message]}


def unknown_path(request: Request) -> Response:
    """404 in GitLab's shape."""
    return JSONResponse({"error": "404 Not Found"}, 404)


def not_supported(request: Request, methods: tuple[str, ...]) -> Response:
    """405 in GitLab's shape."""
    return JSONResponse({"error": "405 Not Allowed"}, 405, headers={"Allow": ", ".join(methods)})


DIALECT = Dialect(
    name="gitlab",
    endpoints=ENDPOINTS,
    authenticate=authenticate,
    refuse=refuse,
    unknown_path=unknown_path,
    not_supported=not_supported,
    read_body=fields,
    described=Description(
        title="GitLab's API: users and their SSH keys",
        scheme={"type": "apiKey", "in": "header", "name": "PRIVATE-TOKEN"},
        schemas=shapes.SCHEMAS,
        shapes=shapes.SHAPES,
        error="gitlab.Error",
    ),
)
