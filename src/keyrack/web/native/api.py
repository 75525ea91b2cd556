"""Keyrack's own API for operators: its routes, who calls, how it says no; must hold no rule of its own."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from keyrack.core.instance import Instance
from keyrack.core.people import tokens as bearer_tokens
from keyrack.errors import Kind, Refusal
from keyrack.model import Actor
from keyrack.web import bodies
from keyrack.web.api import ORDINARY_STATUS, Dialect, address_of
from keyrack.web.native import (
    access,
    alarms,
    claims,
    credentials,
    damaged_rows,
    events,
    everywhere,
    findings,
    freezes,
    grants,
    groups,
    hints,
    host_keys,
    key_places,
    key_policy,
    key_sources,
    offboardings,
    people,
    rehearsals,
    renewals,
    repositories,
    requests,
    resync,
    revocations,
    servers,
    sessions,
    system_users,
    tokens,
    unmanaged_keys,
    user_keys,
    webhooks,
)
from keyrack.web.native.shapes import Error
from keyrack.web.shapes import Description

CHANNEL = "native"
STATUS = {**ORDINARY_STATUS, Kind.INVALID: 422, Kind.TAKEN: 409, Kind.LIMIT: 409}

ENDPOINTS = (
    *servers.ENDPOINTS,
    *unmanaged_keys.ENDPOINTS,
    *sessions.ENDPOINTS,
    *system_users.ENDPOINTS,
    *host_keys.ENDPOINTS,
    *resync.ENDPOINTS,
    *revocations.ENDPOINTS,
    *damaged_rows.ENDPOINTS,
    *alarms.ENDPOINTS,
    *events.ENDPOINTS,
    *grants.ENDPOINTS,
    *access.ENDPOINTS,
    *rehearsals.ENDPOINTS,
    *people.ENDPOINTS,
    *groups.ENDPOINTS,
    *credentials.ENDPOINTS,
    *renewals.ENDPOINTS,
    *freezes.ENDPOINTS,
    *findings.ENDPOINTS,
    *key_places.ENDPOINTS,
    *key_policy.ENDPOINTS,
    *everywhere.ENDPOINTS,
    *requests.ENDPOINTS,
    *claims.ENDPOINTS,
    *user_keys.ENDPOINTS,
    *offboardings.ENDPOINTS,
    *key_sources.ENDPOINTS,
    *tokens.ENDPOINTS,
    *webhooks.ENDPOINTS,
    *repositories.ENDPOINTS,
)


def authenticate(instance: Instance, request: Request) -> Actor:
    """The actor of `Authorization: Bearer TOKEN`. Raises Refusal UNAUTHENTICATED."""
    headers = request.headers.getlist("authorization")
    scheme, _, secret = headers[0].partition(" ") if len(headers) == 1 else ("", "", "")
    if scheme.lower() != "bearer" or not secret.strip():
        raise Refusal(Kind.UNAUTHENTICATED, "token-lacking", "Send a token: Authorization: Bearer TOKEN.")
    return bearer_tokens.authenticate(instance, secret.strip(), address=address_of(request), channel=CHANNEL)


def refuse(request: Request, refusal: Refusal) -> Response:
    """A refusal as {"error": {"code", "message", "field"?}}."""
    status = STATUS[refusal.kind]
    headers = {"Retry-After": str(refusal.retry_after)} if refusal.retry_after else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return _error(status, refusal.code, refusal.message, headers, refusal.field, hints.of(refusal.code))


def unknown_path(request: Request) -> Response:
    """404 for a path without a call."""
    return _error(404, "path-unknown", "There is no such path; /docs lists what there is.", {})


def not_supported(request: Request, methods: tuple[str, ...]) -> Response:
    """405 with the methods that the path has."""
    allowed = ", ".join(sorted(methods))
    return _error(405, "method-not-supported", f"This path takes: {allowed}.", {"Allow": allowed})


DIALECT = Dialect(
    name=CHANNEL,
    endpoints=ENDPOINTS,
    authenticate=authenticate,
    refuse=refuse,
    unknown_path=unknown_path,
    not_supported=not_supported,
    read_body=bodies.read_json,
    described=Description(
        title="Keyrack's own API: hosts, people, keys, access, repositories, the audit log",
        scheme={"type": "http", "scheme": "bearer"},
        schemas={},
        shapes={},
        error="native.Error",
    ),
    shows_quota=True,
    says_unread=True,
    error=Error,
)


def _error(
    status: int, code: str, message: str, headers: dict[str, str], field: str | None = None, hint: str = ""
) -> Response:
    error = {"code": code, "message": message}
    error |= {name: text for name, text in (("field", field), ("hint", hint)) if text}
    return JSONResponse({"error": error}, status, headers=headers)
