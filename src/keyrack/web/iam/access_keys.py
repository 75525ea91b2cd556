"""IAM: access keys, permanent and temporary; reads, calls the core, shows; must hold no rule of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

from keyrack.core.people import access_keys, tokens
from keyrack.errors import Kind, Refusal, invalid
from keyrack.model import Actor
from keyrack.web import bodies
from keyrack.web.api import Call, Endpoint
from keyrack.web.iam import authentication, shapes
from keyrack.web.iam.parameters import part, text

STATES = {"active": True, "inactive": False}


def create(call: Call) -> Response:
    """Make an access key for a user; its secret is shown only once"""
    sent = part(call.body, "credential")
    key = access_keys.create(
        call.instance, call.actor, user_uid=text(sent, "user_id"), description=text(sent, "description")
    )
    return JSONResponse({"credential": {**shapes.access_key(key), "secret": key.secret}}, 201)


def find(call: Call) -> Response:
    """List access keys without their secrets"""
    keys = access_keys.find(call.instance, call.actor, user_uid=call.query.get("user_id"))
    return JSONResponse({"credentials": [shapes.access_key(key) for key in keys]})


def show(call: Call) -> Response:
    """Show an access key without its secret"""
    key = access_keys.get(call.instance, call.actor, call.path["access_key"])
    return JSONResponse({"credential": shapes.access_key(key)})


def change(call: Call) -> Response:
    """Activate or deactivate an access key, or change its description"""
    sent = part(call.body, "credential")
    status = text(sent, "status")
    if status is not None and status not in STATES:
        raise invalid("status", 'status takes "active" or "inactive".')
    key = access_keys.change(
        call.instance,
        call.actor,
        call.path["access_key"],
        active=None if status is None else STATES[status],
        description=text(sent, "description"),
    )
    return JSONResponse({"credential": shapes.access_key(key)})


def delete(call: Call) -> Response:
    """Delete an access key"""
    access_keys.delete(call.instance, call.actor, call.path["access_key"])
    return Response(status_code=204)


def issue_temporary(call: Call) -> Response:
    """Make a temporary access key for the caller's token, or for the one in the body"""
    identity = part(part(call.body, "auth"), "identity")
    if identity.get("methods") != ["token"]:
        raise bodies.malformed('auth.identity.methods must be ["token"].')
    token = part(identity, "token") if identity.get("token") is not None else {}
    key = access_keys.issue_temporary(
        call.instance,
        _caller(call, text(token, "id")),
        duration_seconds=token.get("duration_seconds", access_keys.SHORTEST_LIFE),
        scopes=None if identity.get("policy") is None else _actions(part(identity, "policy")),
    )
    return JSONResponse({"credential": shapes.temporary_access_key(key)}, 201)


CREDENTIALS = "/OS-CREDENTIAL/credentials"
ENDPOINTS = (
    Endpoint("POST", CREDENTIALS, create),
    Endpoint("GET", CREDENTIALS, find),
    Endpoint("GET", CREDENTIALS + "/{access_key}", show),
    Endpoint("PUT", CREDENTIALS + "/{access_key}", change),
    Endpoint("DELETE", CREDENTIALS + "/{access_key}", delete),
    # The token may be only in the body, so the call must not require a header.
    Endpoint("POST", "/OS-CREDENTIAL/securitytokens", issue_temporary, open=True),
)


def _caller(call: Call, secret: str | None) -> Actor:
    """Who asks for a temporary key: the user of the token in the body, of the headers, or of both if both are sent."""
    headers = call.request.headers
    caller = None
    if secret is None or "x-auth-token" in headers or "authorization" in headers:
        caller = authentication.authenticate(call.instance, call.request, "iam")
    if secret is None:
        assert caller is not None
        return caller
    holder = tokens.authenticate(call.instance, secret, address=call.actor.address, channel="iam")
    if caller is not None and caller.user_id != holder.user_id:
        words = "The token in the body is another user's than the request's."
        raise Refusal(Kind.FORBIDDEN, "token-foreign", words)
    return holder


def _actions(policy: Mapping[str, Any]) -> tuple[str, ...]:
    """The actions that a policy allows. Anything else in it is refused, rather than ignored."""
    problem = invalid("policy", "policy takes statements of Effect Allow with Action alone.")
    statements = policy.get("Statement")
    if not isinstance(statements, list) or not statements:
        raise problem
    actions: list[str] = []
    for statement in statements:
        if not isinstance(statement, dict) or set(statement) != {"Effect", "Action"} or statement["Effect"] != "Allow":
            raise problem
        named = statement["Action"]
        if not isinstance(named, list) or not all(isinstance(action, str) and action for action in named):
            raise problem
        actions += named
    if not actions:
        raise problem
    return tuple(actions)  # bounded in number and length by the core
