"""RunCloud API v3 and v2's SSH side: who calls, what there is, how it says no; must hold no rule of its own."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import replace
from functools import partial, wraps
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from keyrack import policy
from keyrack.core.hosts import servers as known_servers
from keyrack.core.hosts import system_users as known_users
from keyrack.core.instance import Instance
from keyrack.core.people import basic_access, tokens
from keyrack.core.work import refuse as refuse_call
from keyrack.errors import Kind, Refusal, missing
from keyrack.model import Actor
from keyrack.web import bodies
from keyrack.web.api import ORDINARY_STATUS, Call, Dialect, Endpoint, address_of, is_shared
from keyrack.web.runcloud import credentials, servers, shapes, ssh_config, system_users
from keyrack.web.runcloud.grammar import SPELLINGS, Unprocessable, words
from keyrack.web.shapes import Description

CHANNEL = "runcloud"
STATUS = {**ORDINARY_STATUS, Kind.INVALID: 422, Kind.TAKEN: 422, Kind.LIMIT: 422}
MESSAGES = {
    Kind.FORBIDDEN: "This action is unauthorized.",
    Kind.MISSING: "Resources not found.",
    Kind.THROTTLED: "Too Many Attempts.",
    Kind.UNAVAILABLE: "Service Unavailable",
    Kind.FAULT: "Server Error",
}


def ping(call: Call) -> Response:
    """Check a token: answers pong if it is valid"""
    return JSONResponse({"message": "pong"})


def _in_order(endpoint: Endpoint) -> Endpoint:
    """A call that answers 403 or 404 rather than 422, if several apply, as Laravel does."""

    @wraps(endpoint.handler)
    def answered(call: Call) -> Response:
        try:
            return endpoint.handler(call)
        except Refusal as refusal:
            if isinstance(refusal, Unprocessable) and not refusal.recorded:
                raise refuse_call(
                    call.instance, call.actor, endpoint.action, refusal, there=partial(_is_there, call)
                ) from None
            if refusal.kind is not Kind.INVALID:
                raise
            if endpoint.action and policy.may(call.actor, endpoint.action) is not None:
                # The query is read before the core checks rights.
                raise refuse_call(call.instance, call.actor, endpoint.action, refusal) from None
            # The core checks values before it looks for the server.
            if not _is_there(call):
                raise missing("server") from None
            raise

    return replace(endpoint, handler=answered)


def _is_there(call: Call) -> bool:
    """Whether there is what the path names: a server, or a system user of one."""
    number = call.ids.get("serverId")
    if number is None:
        return True
    if "userId" in call.ids:
        return known_users.has(call.instance, call.actor, number, call.ids["userId"])
    return known_servers.has(call.instance, call.actor, number)


ENDPOINTS = (
    Endpoint("GET", "/ping", ping, on_event_loop=True),
    *(
        _in_order(one)
        for one in (*servers.ENDPOINTS, *system_users.ENDPOINTS, *credentials.ENDPOINTS, *ssh_config.ENDPOINTS)
    ),
)


def authenticate(instance: Instance, request: Request) -> Actor:
    """The actor of `Authorization: Bearer TOKEN`. Raises Refusal UNAUTHENTICATED."""
    return _actor(instance, request, basic=False)


def authenticate_v2(instance: Instance, request: Request) -> Actor:
    """The actor of a bearer token, or of an access key by HTTP Basic. Raises Refusal UNAUTHENTICATED."""
    return _actor(instance, request, basic=True)


def read_body(request: Request, content: bytes) -> tuple[Mapping[str, Any], bool]:
    """The fields of a JSON or form body, and whether it was a form. Raises Refusal.

    A body without a type counts as JSON, as programs omit it. So does one of curl's default type, that of a form, if it
    begins with a brace, which a form would encode.
    """
    kind = bodies.media_type(request)
    if kind == bodies.FORM and not content.lstrip().startswith(b"{"):
        return bodies.form(content), True
    if kind == bodies.FORM:
        return bodies.json_object(content), False
    if kind in ("", "application/json", bodies.TEXT) or kind.endswith("+json"):
        # Programs in PHP and JavaScript send these for "no fields".
        return ({} if content.strip() in (b"null", b"[]") else bodies.json_object(content)), False
    raise bodies.malformed("The body must be JSON or a form.", "content-type")


def refuse(request: Request, refusal: Refusal) -> Response:
    """A refusal in RunCloud's shape: `message`, with `errors` for fields."""
    status = STATUS[refusal.kind]
    message = MESSAGES.get(refusal.kind, words(refusal))
    body: dict[str, Any] = {"message": message}
    if isinstance(refusal, Unprocessable):
        body["errors"] = refusal.errors
    elif status == 422:
        field = refusal.field or "body"
        body["errors"] = {SPELLINGS.get(field, field): [message]}
    return bodies.retried(JSONResponse(body, status), refusal)


def unknown_path(request: Request) -> Response:
    """404 in RunCloud's words."""
    return JSONResponse({"message": MESSAGES[Kind.MISSING]}, 404)


def not_supported(request: Request, methods: tuple[str, ...]) -> Response:
    """405 in Laravel's words, GET and HEAD first as there."""
    known = sorted(methods, key=("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE").index)
    supported = ", ".join(known)
    words = f"The {request.method} method is not supported for this route. Supported methods: {supported}."
    return JSONResponse({"message": words}, 405, headers={"Allow": supported})


V3 = Dialect(
    name=CHANNEL,
    endpoints=ENDPOINTS,
    authenticate=authenticate,
    refuse=refuse,
    unknown_path=unknown_path,
    not_supported=not_supported,
    read_body=read_body,
    described=Description(
        title="RunCloud API: servers, system users and their SSH keys",
        scheme={"type": "http", "scheme": "bearer"},
        schemas=shapes.SCHEMAS,
        shapes=shapes.SHAPES,
        error="runcloud.Error",
    ),
    shows_quota=True,
)
V2 = replace(V3, authenticate=authenticate_v2)


def _actor(instance: Instance, request: Request, *, basic: bool) -> Actor:
    # v2 has words of its own for invalid credentials, with which programs compare.
    wrong = "Invalid credentials." if basic else "Unauthenticated."
    headers = bodies.sent_texts(request, b"authorization")
    if not headers or not headers[0].strip():
        raise Refusal(Kind.UNAUTHENTICATED, "token-lacking", "Missing API Token.")
    scheme, _, secret = headers[0].partition(" ")
    address = address_of(request)
    try:
        if len(headers) == 1 and scheme.lower() == "bearer":
            return tokens.authenticate(instance, secret.strip(), address=address, channel=CHANNEL)
        if len(headers) == 1 and scheme.lower() == "basic" and basic:
            key_id, key_secret = _basic(secret.strip())
            return basic_access.authenticate(
                instance, key_id, key_secret, address=address, channel=CHANNEL, shared=is_shared(request)
            )
    except Refusal as refusal:
        if refusal.kind is not Kind.UNAUTHENTICATED:
            raise
    raise Refusal(Kind.UNAUTHENTICATED, "token-not-in-force", wrong)


def _basic(text: str) -> tuple[str, str]:
    """The key and the secret in Basic credentials (RFC 7617); both empty if these are malformed."""
    try:
        key_id, _, secret = base64.b64decode(text, validate=True).decode("utf-8").partition(":")
    except (binascii.Error, ValueError):
        return "", ""
    return key_id, secret
