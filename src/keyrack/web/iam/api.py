"""IAM (Keystone v3): tokens and the discovery documents; reads, calls the core, shows; must hold no rule of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from keyrack.core.instance import Instance
from keyrack.core.people import tokens
from keyrack.core.people.tokens import Scope, SignedIn, SignIn
from keyrack.web import bodies
from keyrack.web.api import Call, Dialect, Endpoint
from keyrack.web.iam import access_keys, authentication, directory, shapes
from keyrack.web.iam.shapes import moment, part, text


def issue_token(call: Call) -> Response:
    """Get a token for a name and a password; it comes in the header X-Subject-Token"""
    auth = part(call.body, "auth")
    identity = part(auth, "identity")
    if identity.get("methods") != ["password"]:
        raise bodies.malformed('auth.identity.methods must be ["password"].')
    who = _who(part(part(identity, "password"), "user"))
    signed_in = tokens.sign_in(call.instance, who, _scope(auth), address=call.actor.address)
    return _answer(call, signed_in, signed_in.secret, 201)


def validate_token(call: Call) -> Response:
    """Show whose token X-Subject-Token is and until when it is good"""
    secret = _subject(call)
    return _answer(call, tokens.inspect(call.instance, call.actor, secret), secret, 200)


def revoke_token(call: Call) -> Response:
    """End the token in X-Subject-Token"""
    tokens.revoke_secret(call.instance, call.actor, _subject(call))
    return Response(status_code=204)


def show_catalog(call: Call) -> Response:
    """Show which APIs there are and where"""
    return JSONResponse({"catalog": _catalog(call.instance), "links": {"self": f"{call.instance.settings.url}/v3"}})


def show_version(call: Call) -> Response:
    """Show the version of this API, as Keystone clients ask for it"""
    return JSONResponse({"version": _version(call.instance)})


def asks_for_versions(request: Request) -> bool:
    """Whether a request for the root comes from a program that looks for IAM, rather than from a browser."""
    accept = request.headers.get("accept", "")
    return "application/json" in accept and "text/html" not in accept


def versions(instance: Instance) -> Response:
    """GET /: the versions there are, as Keystone names them with its 300."""
    return JSONResponse({"versions": {"values": [_version(instance)]}}, 300)


V3 = Dialect(
    name="iam",
    endpoints=(
        Endpoint("GET", "/", show_version, open=True),
        Endpoint("POST", "/auth/tokens", issue_token, open=True, hashes=True),
        Endpoint("GET", "/auth/tokens", validate_token),
        Endpoint("DELETE", "/auth/tokens", revoke_token),
        Endpoint("GET", "/auth/catalog", show_catalog),
        *directory.V3_ENDPOINTS,
    ),
    authenticate=partial(authentication.authenticate, channel="iam"),
    refuse=shapes.refuse,
    unknown_path=shapes.unknown_path,
    not_supported=shapes.not_supported,
    read_body=shapes.read_body,
)
V3_0 = replace(V3, endpoints=access_keys.ENDPOINTS)
V5 = replace(V3, endpoints=directory.V5_ENDPOINTS)


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
    if "project" in scope:
        project = part(scope, "project")
        domain = part(project, "domain") if project.get("domain") is not None else {}
        found = Scope(
            project_uid=text(project, "id"),
            project_name=text(project, "name"),
            workspace_uid=text(domain, "id"),
            workspace_name=text(domain, "name"),
        )
        if found.project_uid is None and found.project_name is None:
            raise bodies.malformed("scope.project takes an id or a name.")
        return found
    domain = part(scope, "domain")
    return Scope(workspace_uid=text(domain, "id"), workspace_name=text(domain, "name"))


def _answer(call: Call, signed_in: SignedIn, secret: str, status: int) -> Response:
    body = {"token": _token(call.instance, signed_in, catalog=not call.query.get("nocatalog"))}
    return JSONResponse(body, status, headers={"X-Subject-Token": secret})


def _token(instance: Instance, signed_in: SignedIn, *, catalog: bool) -> dict[str, Any]:
    domain = {"id": signed_in.workspace.uid, "name": signed_in.workspace.name}
    body: dict[str, Any] = {
        "methods": ["password"],
        "issued_at": moment(signed_in.token.created_at),
        "expires_at": moment(signed_in.token.expires_at),
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


def _version(instance: Instance) -> dict[str, Any]:
    return {
        "id": "v3.6",
        "status": "stable",
        "updated": "2026-11-22T00:00:00Z",
        "links": [{"rel": "self", "href": f"{instance.settings.url}/v3/"}],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}],
    }


def _catalog(instance: Instance) -> list[dict[str, Any]]:
    def entry(uid: str, kind: str, name: str, url: str) -> dict[str, Any]:
        endpoint = {"id": uid, "url": url, "region": "*", "region_id": "*", "interface": "public"}
        return {"id": uid, "type": kind, "name": name, "endpoints": [endpoint]}

    url = instance.settings.url
    return [
        entry("0" * 31 + "1", "identity", "iam", f"{url}/v3"),
        entry("0" * 31 + "2", "codeartsrepo", "codeartsrepo", url),
    ]
