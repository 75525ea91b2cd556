"""IAM (Keystone v3): tokens; reads, calls the core, shows; must hold no rule of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

from keyrack.core.people import tokens
from keyrack.core.people.tokens import Scope, SignedIn, SignIn
from keyrack.web import bodies
from keyrack.web.api import Call, Endpoint
from keyrack.web.iam import shapes
from keyrack.web.iam.parameters import part, text

METHODS = (["password"], ["password", "totp"], ["totp", "password"])


def issue_token(call: Call) -> Response:
    """Get a token by password, and one-time code if the user has one; the token is in the header X-Subject-Token"""
    auth = part(call.body, "auth")
    identity = part(auth, "identity")
    if identity.get("methods") not in METHODS:
        raise bodies.malformed('auth.identity.methods must be ["password"] or ["password", "totp"].')
    who, code = _who(part(part(identity, "password"), "user")), None
    if "totp" in identity["methods"]:
        code = text(part(part(identity, "totp"), "user"), "passcode")
        if code is None:
            raise bodies.malformed("The body lacks auth.identity.totp.user.passcode.")
    catalog = _catalog(call)  # before anything is made
    signed_in = tokens.sign_in(call.instance, who, _scope(auth), address=call.actor.address, code=code)
    return _answer(call, signed_in, signed_in.secret, 201, catalog=catalog)


def validate_token(call: Call) -> Response:
    """Show the user and the end of the token in X-Subject-Token"""
    secret = _subject(call)
    return _answer(call, tokens.inspect(call.instance, call.actor, secret), secret, 200, catalog=_catalog(call))


def revoke_token(call: Call) -> Response:
    """Revoke the token in X-Subject-Token"""
    tokens.revoke_secret(call.instance, call.actor, _subject(call))
    return Response(status_code=204)


ENDPOINTS = (
    Endpoint("POST", "/auth/tokens", issue_token, open=True, hashes=True),
    Endpoint("GET", "/auth/tokens", validate_token),
    Endpoint("DELETE", "/auth/tokens", revoke_token),
)


def _subject(call: Call) -> str:
    secrets = call.request.headers.getlist("x-subject-token")
    if len(secrets) != 1:
        raise bodies.malformed("The request takes one X-Subject-Token.")
    return secrets[0]


def _who(user: Mapping[str, Any]) -> SignIn:
    password = text(user, "password")
    if password is None:
        raise bodies.malformed("The body lacks the user's password.")
    if user.get("id") is not None:
        return SignIn(password=password, user_uid=text(user, "id"))
    domain = part(user, "domain")
    return SignIn(
        password=password,
        user_name=text(user, "name"),
        workspace_uid=text(domain, "id"),
        workspace_name=text(domain, "name"),
    )


def _scope(auth: Mapping[str, Any]) -> Scope:
    if auth.get("scope") in (None, {}):
        return Scope()
    scope = part(auth, "scope")
    if "project" in scope and "domain" in scope:
        raise bodies.malformed("scope takes a project or a domain (account), not both.")
    if "project" in scope:
        project = part(scope, "project")
        domain = part(project, "domain") if project.get("domain") is not None else {}
        wanted = Scope(
            project_uid=text(project, "id"),
            project_name=text(project, "name"),
            workspace_uid=text(domain, "id"),
            workspace_name=text(domain, "name"),
        )
        if wanted.project_uid is None and wanted.project_name is None:
            raise bodies.malformed("scope.project takes an id or a name.")
        return wanted
    domain = part(scope, "domain")
    return Scope(workspace_uid=text(domain, "id"), workspace_name=text(domain, "name"))


def _catalog(call: Call) -> bool:
    return not call.query.get("nocatalog")


def _answer(call: Call, signed_in: SignedIn, secret: str, status: int, *, catalog: bool) -> Response:
    body = {"token": shapes.token(call.instance, signed_in, catalog=catalog)}
    return JSONResponse(body, status, headers={"X-Subject-Token": secret})
