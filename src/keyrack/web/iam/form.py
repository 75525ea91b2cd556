"""How IAM writes and reads what all its calls share: errors, times, parts of bodies; must call no command."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from keyrack.errors import Kind, Refusal
from keyrack.web import bodies
from keyrack.web.iam import authentication

STATUS = {
    Kind.UNAUTHENTICATED: 401,
    Kind.FORBIDDEN: 403,
    Kind.MISSING: 404,
    Kind.INVALID: 400,
    Kind.TAKEN: 409,
    Kind.LIMIT: 400,
    Kind.THROTTLED: 429,
    Kind.TOO_LARGE: 413,
    Kind.UNAVAILABLE: 503,
    Kind.FAULT: 500,
}


def refuse(request: Request, refusal: Refusal) -> Response:
    """A refusal in Keystone's three fields, or in the gateway's shape where the gateway refuses."""
    gateway = authentication.gateway_refusal(request, refusal)
    if gateway is not None:
        return gateway
    return bodies.retried(error(STATUS[refusal.kind], refusal.message), refusal)


def unknown_path(request: Request) -> Response:
    """404 in Keystone's shape."""
    return error(404, "There is no such API.")


def not_supported(request: Request, methods: tuple[str, ...]) -> Response:
    """405 in Keystone's shape."""
    response = error(405, f"{request.method} is not supported here; supported: {', '.join(methods)}.")
    response.headers["Allow"] = ", ".join(methods)
    return response


def read_body(request: Request, content: bytes) -> tuple[Mapping[str, Any], bool]:
    """The fields of a JSON body, whatever curl called it."""
    return bodies.json_fields(request, content), False


def error(status: int, message: str) -> Response:
    """An error in Keystone's three fields; the SDKs cannot unpack the variant with five."""
    title = HTTPStatus(status).phrase
    return JSONResponse({"error": {"code": status, "message": message, "title": title}}, status)


def part(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object inside a body; raises Refusal INVALID."""
    found = value.get(name)
    if not isinstance(found, dict):
        raise bodies.malformed(f"The body lacks the object {name!r}.")
    return found


def text(value: Mapping[str, Any], name: str) -> str | None:
    """A text inside a body, or None; raises Refusal INVALID for another type."""
    found = value.get(name)
    if found is None or isinstance(found, str):
        return found
    raise bodies.malformed(f"{name!r} must be a string.")


def moment(at: datetime | None) -> str:
    """A time as IAM writes it, UTC with six decimals; "" for never."""
    return "" if at is None else at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
