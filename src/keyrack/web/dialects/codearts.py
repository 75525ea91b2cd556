"""CodeArts Repo v4: a user's own SSH keys; reads, calls the core, shows; must hold no rule of its own."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from keyrack.core import tokens, user_keys
from keyrack.core.instance import Instance
from keyrack.errors import Kind, Refusal, invalid
from keyrack.model import Actor, UserKey
from keyrack.web import bodies
from keyrack.web.dialect import Call, Dialect, Endpoint, address_of

LONGEST_TITLE = 1000
LIMIT = 20
MOST = 100

# The contract's table of decisions; codes in CodeArts' own series.
ANSWERS: dict[Kind, tuple[int, str]] = {
    Kind.UNAUTHENTICATED: (401, "DEV.00000003"),
    Kind.FORBIDDEN: (403, "CH.004403"),
    Kind.MISSING: (404, "CH.000404"),
    Kind.INVALID: (400, "CH.010001"),
    Kind.TAKEN: (409, "CH.080002"),
    Kind.LIMIT: (400, "CH.010001"),
    Kind.THROTTLED: (429, "APIGW.0308"),
    Kind.UNAVAILABLE: (500, "CH.000001"),
}
NO_CREDENTIALS = "DEV.00000001"
FAILED_SIGNATURE = "APIGW.0301"


def add_ssh_key(call: Call) -> Response:
    """POST /v4/user/keys"""
    title = call.body.get("title")
    if isinstance(title, int | float) and not isinstance(title, bool):
        # The published example sends a number; it is answered as a string.
        title = str(title)
    key = user_keys.add(
        call.instance,
        call.actor,
        title=title,
        public_key=call.body.get("key"),
        longest_title=LONGEST_TITLE,
        keyless=True,
    )
    return JSONResponse(_user_key(call.instance, key), 201)


def list_user_keys(call: Call) -> Response:
    """GET /v4/user/keys"""
    offset = _whole(call.query, "offset", 0, 0, 2_147_483_647)
    limit = _whole(call.query, "limit", LIMIT, 1, MOST)
    search = call.query.get("query", "")
    if len(search) > 2000:
        raise invalid("query", "query takes at most 2000 characters.")
    found = user_keys.find(call.instance, call.actor, search=search, offset=offset, limit=limit)
    shown = [_user_key(call.instance, key) for key in found.items]
    return JSONResponse({"keys": shown, "total": found.total})


def delete_ssh_key(call: Call) -> Response:
    """DELETE /v4/user/keys/{key_id}"""
    user_keys.delete(call.instance, call.actor, call.ids["key_id"])
    return Response(status_code=204)


ENDPOINTS = (
    Endpoint("POST", "/user/keys", add_ssh_key),
    Endpoint("GET", "/user/keys", list_user_keys),
    Endpoint("DELETE", "/user/keys/{key_id}", delete_ssh_key),
)


def authenticate(instance: Instance, request: Request) -> Actor:
    """The actor of `X-Auth-Token`. Raises Refusal UNAUTHENTICATED."""
    if request.headers.get("authorization", "").startswith("SDK-"):
        words = "Incorrect IAM authentication information: signed requests are not served yet."
        raise Refusal(Kind.UNAUTHENTICATED, FAILED_SIGNATURE, words)
    headers = request.headers.getlist("x-auth-token")
    if not headers:
        raise Refusal(Kind.UNAUTHENTICATED, NO_CREDENTIALS, "The request carries no credentials.")
    if len(headers) == 1:
        try:
            return tokens.authenticate(instance, headers[0], address=address_of(request), door="codearts")
        except Refusal:
            pass
    words = "Authentication information expired."
    raise Refusal(Kind.UNAUTHENTICATED, "token-not-in-force", words)


def read_body(request: Request, content: bytes) -> tuple[Mapping[str, Any], bool]:
    """The fields of a JSON body."""
    if bodies.media_type(request) not in ("", "application/json"):
        raise bodies.malformed("The body must be JSON.", "content-type")
    return bodies.json_object(content), False


def refuse(request: Request, refusal: Refusal) -> Response:
    """A refusal in v4's shape."""
    status, code = ANSWERS[refusal.kind]
    if refusal.code in (NO_CREDENTIALS, FAILED_SIGNATURE):
        code = refusal.code
    return JSONResponse({"error_code": code, "error_msg": refusal.message}, status)


def unknown_path(request: Request) -> Response:
    """404 in v4's shape."""
    return JSONResponse({"error_code": "CH.000404", "error_msg": "There is no such API."}, 404)


def not_supported(request: Request, methods: tuple[str, ...]) -> Response:
    """405 in v4's shape."""
    words = f"{request.method} is not supported here; supported: {', '.join(methods)}."
    return JSONResponse({"error_code": "CH.010001", "error_msg": words}, 405, headers={"Allow": ", ".join(methods)})


DIALECT = Dialect(
    name="codearts",
    endpoints=ENDPOINTS,
    authenticate=authenticate,
    refuse=refuse,
    unknown_path=unknown_path,
    not_supported=not_supported,
    read_body=read_body,
)


def created_at(instance: Instance, at: datetime) -> str:
    """A time as v4 writes it: milliseconds and a numeric offset, in the instance's zone."""
    return at.astimezone(ZoneInfo(instance.settings.time_zone)).isoformat(timespec="milliseconds")


def _whole(query: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    value = bodies.number(text)
    if value is None or not least <= value <= most:
        raise invalid(name, f"{name} takes a whole number from {least} to {most}.")
    return value


def _user_key(instance: Instance, key: UserKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "title": key.title,
        "key": key.line,
        "created_at": created_at(instance, key.created_at),
    }
