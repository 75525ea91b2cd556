"""CodeArts Repo v4: a user's own SSH keys; reads, calls the core, shows; must hold no rule of its own."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from keyrack.core.instance import Instance
from keyrack.core.keys import user_keys
from keyrack.errors import Kind, Refusal
from keyrack.model import UserKey
from keyrack.web import bodies
from keyrack.web.api import Call, Dialect, Endpoint
from keyrack.web.codearts import form, repositories
from keyrack.web.codearts.form import NOT_IN_FORCE, UNKNOWN_API, created_at, searched, status_and_code, window
from keyrack.web.iam import authentication

LONGEST_TITLE = 1000

# The deploy keys' pages document codes of their own for what others answer alike.
OF_REPOSITORIES = re.compile(r"/v4/(repositories|groups|projects)/.*")
OF_DEPLOY_KEYS = re.compile(r"/v4/(repositories|groups|projects)/[^/]*/deploy-keys(/[^/]*)?/?")
UNRECOGNISED = "CH.00000002"
NO_ACCESS = "CH.00401001"
NO_REPOSITORY = "CH.00402000"


def add_ssh_key(call: Call) -> Response:
    """Register a public key as one's own, for the servers and repositories one may reach"""
    # The published example sends a number and is answered one; what is kept, and listed, is its text.
    sent = title = call.body.get("title")
    if isinstance(title, int | float) and not isinstance(title, bool):
        title = str(title)
    key = user_keys.add(
        call.instance,
        call.actor,
        title=title,
        public_key=call.body.get("key"),
        longest_title=LONGEST_TITLE,
        keyless=True,
    )
    return JSONResponse(_user_key(call.instance, key) | {"title": sent}, 201)


def list_user_keys(call: Call) -> Response:
    """List one's own SSH keys, newest first"""
    offset, limit = window(call.query)
    search = searched(call.query, "query")
    found = user_keys.find(call.instance, call.actor, search=search, offset=offset, limit=limit)
    shown = [_user_key(call.instance, key) for key in found.items]
    return JSONResponse({"keys": shown, "total": found.total})


def delete_ssh_key(call: Call) -> Response:
    """Delete one of one's own SSH keys everywhere"""
    user_keys.delete(call.instance, call.actor, call.ids["key_id"])
    return Response(status_code=204)


ENDPOINTS = (
    Endpoint("POST", "/user/keys", add_ssh_key),
    Endpoint("GET", "/user/keys", list_user_keys),
    Endpoint("DELETE", "/user/keys/{key_id}", delete_ssh_key),
    *repositories.ENDPOINTS,
)


def refuse(request: Request, refusal: Refusal) -> Response:
    """A refusal in v4's shape, or in the gateway's where the gateway refuses."""
    gateway = authentication.gateway_refusal(request, refusal)
    if gateway is not None:
        return gateway
    status, code = status_and_code(refusal)
    path = request.url.path
    if refusal.code == "repository-missing":
        code = NO_REPOSITORY
    elif refusal.kind is Kind.FORBIDDEN and OF_REPOSITORIES.fullmatch(path):
        code = NO_ACCESS
    elif refusal.code == NOT_IN_FORCE and OF_DEPLOY_KEYS.fullmatch(path):
        code = UNRECOGNISED
    return bodies.retried(JSONResponse({"error_code": code, "error_msg": refusal.message}, status), refusal)


def unknown_path(request: Request) -> Response:
    """404 in v4's shape."""
    return JSONResponse({"error_code": "CH.000404", "error_msg": UNKNOWN_API}, 404)


def not_supported(request: Request, methods: tuple[str, ...]) -> Response:
    """405 in v4's shape."""
    words = f"{request.method} is not supported here; supported: {', '.join(methods)}."
    return JSONResponse({"error_code": "CH.010001", "error_msg": words}, 405, headers={"Allow": ", ".join(methods)})


DIALECT = Dialect(
    name="codearts",
    endpoints=ENDPOINTS,
    authenticate=partial(authentication.authenticate, channel="codearts"),
    refuse=refuse,
    unknown_path=unknown_path,
    not_supported=not_supported,
    read_body=form.read_body,
)


def _user_key(instance: Instance, key: UserKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "title": key.title,
        "key": key.line,
        "created_at": created_at(instance, key.created_at),
    }
