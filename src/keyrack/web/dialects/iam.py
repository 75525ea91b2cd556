"""IAM (Keystone v3): tokens for passwords; reads, calls the core, shows; must hold no rule of its own."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from keyrack.core import tokens
from keyrack.core.instance import Instance
from keyrack.core.tokens import Scope, SignedIn, SignIn
from keyrack.errors import Kind, Refusal
from keyrack.model import Actor
from keyrack.web import bodies
from keyrack.web.dialect import Call, Dialect, Endpoint, address_of

STATUS = {
    Kind.UNAUTHENTICATED: 401,
    Kind.FORBIDDEN: 403,
    Kind.MISSING: 404,
    Kind.INVALID: 400,
    Kind.TAKEN: 409,
    Kind.LIMIT: 400,
    Kind.THROTTLED: 429,
    Kind.UNAVAILABLE: 503,
}


def issue_token(call: Call) -> Response:
    """POST /v3/auth/tokens"""
    auth = _part(call.body, "auth")
    identity = _part(auth, "identity")
    if identity.get("methods") != ["password"]:
        raise bodies.malformed('auth.identity.methods must be ["password"].')
    who = _who(_part(_part(identity, "password"), "user"))
    signed_in = tokens.sign_in(call.instance, who, _scope(auth), address=call.actor.address)
    body = {"token": _token(call.instance, signed_in, catalog="nocatalog" not in call.query)}
    return JSONResponse(body, 201, headers={"X-Subject-Token": signed_in.secret})


ENDPOINTS = (Endpoint("POST", "/auth/tokens", issue_token, open=True),)


def authenticate(instance: Instance, request: Request) -> Actor:
    """The actor of `X-Auth-Token`. Raises Refusal UNAUTHENTICATED."""
    return tokens.authenticate(
        instance, request.headers.get("x-auth-token", ""), address=address_of(request), door="iam"
    )


def read_body(request: Request, content: bytes) -> tuple[Mapping[str, Any], bool]:
    """The fields of a JSON body."""
    if bodies.media_type(request) not in ("", "application/json"):
        raise bodies.malformed("The body must be JSON.", "content-type")
    return bodies.json_object(content), False


def refuse(request: Request, refusal: Refusal) -> Response:
    """A refusal in Keystone's three fields."""
    return _error(STATUS[refusal.kind], refusal.message)


def unknown_path(request: Request) -> Response:
    """404 in Keystone's shape."""
    return _error(404, "There is no such API.")


def not_supported(request: Request, methods: tuple[str, ...]) -> Response:
    """405 in Keystone's shape."""
    response = _error(405, f"{request.method} is not supported here; supported: {', '.join(methods)}.")
    response.headers["Allow"] = ", ".join(methods)
    return response


DIALECT = Dialect(
    name="iam",
    endpoints=ENDPOINTS,
    authenticate=authenticate,
    refuse=refuse,
    unknown_path=unknown_path,
    not_supported=not_supported,
    read_body=read_body,
)


def _error(status: int, message: str) -> Response:
    title = HTTPStatus(status).phrase
    return JSONResponse({"error": {"code": status, "message": message, "title": title}}, status)


def _part(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = value.get(name)
    if not isinstance(part, dict):
        raise bodies.malformed(f"The body lacks the object {name!r}.")
    return part


def _text(value: Mapping[str, Any], name: str) -> str | None:
    text = value.get(name)
    if text is None or isinstance(text, str):
        return text
    raise bodies.malformed(f"{name!r} must be a string.")


def _who(user: Mapping[str, Any]) -> SignIn:
    password = _text(user, "password")
    if password is None:
        raise bodies.malformed("The body lacks the user's password.")
    if user.get("id") is not None:
        return SignIn(password=password, user_uid=_text(user, "id"))
    domain = _part(user, "domain")
    return SignIn(
        password=password,
        user_name=_text(user, "name"),
        workspace_uid=_text(domain, "id"),
        workspace_name=_text(domain, "name"),
    )


def _scope(auth: Mapping[str, Any]) -> Scope:
    if auth.get("scope") is None:
        return Scope()
    scope = _part(auth, "scope")
    if "project" in scope:
        project = _part(scope, "project")
        return Scope(project_uid=_text(project, "id"), project_name=_text(project, "name"))
    domain = _part(scope, "domain")
    return Scope(workspace_uid=_text(domain, "id"), workspace_name=_text(domain, "name"))


def _moment(at: datetime | None) -> str:
    return "" if at is None else at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _token(instance: Instance, signed_in: SignedIn, *, catalog: bool) -> dict[str, Any]:
    domain = {"id": signed_in.workspace.uid, "name": signed_in.workspace.name}
    body: dict[str, Any] = {
        "methods": ["password"],
        "issued_at": _moment(signed_in.token.created_at),
        "expires_at": _moment(signed_in.token.expires_at),
        "user": {
            "id": signed_in.user.uid,
            "name": signed_in.user.name,
            "password_expires_at": "",
            "domain": domain,
        },
        "roles": [{"id": "0", "name": "te_admin" if signed_in.user.role in ("owner", "admin") else "readonly"}],
    }
    if signed_in.project is None:
        body["domain"] = domain
    else:
        body["project"] = {
            "id": signed_in.project.uid,
            "name": signed_in.project.name,
            "domain": domain,
        }
    if catalog:
        body["catalog"] = _catalog(instance)
    return body


def _catalog(instance: Instance) -> list[dict[str, Any]]:
    def entry(uid: str, kind: str, name: str, url: str) -> dict[str, Any]:
        endpoint = {"id": uid, "url": url, "region": "*", "region_id": "*", "interface": "public"}
        return {"id": uid, "type": kind, "name": name, "endpoints": [endpoint]}

    url = instance.settings.url
    return [
        entry("0" * 31 + "1", "identity", "iam", f"{url}/v3"),
        entry("0" * 31 + "2", "codeartsrepo", "codeartsrepo", url),
    ]
