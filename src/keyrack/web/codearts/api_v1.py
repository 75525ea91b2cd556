"""CodeArts Repo v1 and v2: SSH keys and deploy keys in their envelope; reads, calls the core, shows; no rule."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from keyrack.core.git import deploy_keys
from keyrack.core.instance import Instance
from keyrack.core.keys import user_keys
from keyrack.errors import Kind, Refusal, invalid, missing
from keyrack.model import UserKey
from keyrack.store.deploy_keys import DeployKey
from keyrack.web import bodies
from keyrack.web.api import Call, Dialect, Endpoint
from keyrack.web.codearts import form, repositories_v1
from keyrack.web.codearts.form import UNKNOWN_API, created_at, status_and_code
from keyrack.web.codearts.repositories_v1 import succeeded
from keyrack.web.iam import authentication

LONGEST_TITLE = 255
EMPTY_OR_KNOWN = "CH.080002"
KEY_NOT_VALID = "40"
MOST_LISTED = 100_000


def add_ssh_key(call: Call) -> Response:
    """Register a public key as one's own (v1)"""
    _filled(call, "title", "key")
    key = user_keys.add(
        call.instance,
        call.actor,
        title=call.body["title"],
        public_key=call.body["key"],
        longest_title=LONGEST_TITLE,
    )
    return succeeded(_user_key(key))


def list_ssh_keys(call: Call) -> Response:
    """List all of one's own SSH keys (v1), which has no pages"""
    found = user_keys.find(call.instance, call.actor, limit=MOST_LISTED)
    return succeeded({"total": found.total, "sshkey": [_user_key(key) for key in found.items]})


def delete_ssh_key(call: Call) -> Response:
    """Delete one of one's own SSH keys everywhere (v1)"""
    gone = user_keys.delete(call.instance, call.actor, call.ids["id"])
    return succeeded(str(gone.id))


def refuse_private_key(call: Call) -> Response:
    """Refuse to look at a private key: none is ever to be sent here"""
    raise missing("API")


def add_deploy_key(call: Call) -> Response:
    """Give a repository a key of its own, which reads only"""
    _filled(call, "key_title", "key", "application")
    if call.body.get("can_push") is not False:
        raise invalid("can_push", "can_push takes false alone: deploy keys read only.")
    key = deploy_keys.add(
        call.instance,
        call.actor,
        call.ids["repository_id"],
        title=call.body["key_title"],
        public_key=call.body["key"],
        application=call.body["application"],
    )
    return succeeded(_deploy_key(call.instance, key))


def delete_deploy_key(call: Call) -> Response:
    """Take a deploy key from a repository"""
    deploy_keys.delete(call.instance, call.actor, call.ids["repository_id"], call.ids["key_id"])
    return succeeded(True)


V1_ENDPOINTS = (
    Endpoint("POST", "/users/sshkey", add_ssh_key),
    Endpoint("GET", "/users/sshkey", list_ssh_keys),
    Endpoint("DELETE", "/users/sshkey/{id}", delete_ssh_key),
    Endpoint("POST", "/users/sshkey/privatekey/verify", refuse_private_key, open=True),
    Endpoint("POST", "/repositories/{repository_id}/deploy_keys", add_deploy_key),
    Endpoint("DELETE", "/repositories/{repository_id}/deploy_keys/{key_id}", delete_deploy_key),
    *repositories_v1.V1_ENDPOINTS,
)
V2_ENDPOINTS = (
    Endpoint("POST", "/repositories/{repository_id}/deploy-keys", add_deploy_key),
    Endpoint("DELETE", "/repositories/{repository_id}/deploy-keys/{key_id}", delete_deploy_key),
    *repositories_v1.V2_ENDPOINTS,
)


def refuse(request: Request, refusal: Refusal) -> Response:
    """A refusal in v1's and v2's envelope, or in the gateway's shape where the gateway refuses."""
    gateway = authentication.gateway_refusal(request, refusal)
    if gateway is not None:
        return gateway
    status, code = status_and_code(refusal)
    if refusal.code == "empty":
        code = EMPTY_OR_KNOWN
    elif refusal.kind is Kind.INVALID and refusal.field == "public_key" and "/users/sshkey" in request.url.path:
        code = KEY_NOT_VALID
    return bodies.retried(_failed(status, code, refusal.message), refusal)


def unknown_path(request: Request) -> Response:
    """404 in v1's and v2's envelope."""
    return _failed(404, "CH.000404", UNKNOWN_API)


def not_supported(request: Request, methods: tuple[str, ...]) -> Response:
    """405 in v1's and v2's envelope."""
    supported = ", ".join(methods)
    response = _failed(405, "CH.010001", f"{request.method} is not supported here; supported: {supported}.")
    response.headers["Allow"] = supported
    return response


V1 = Dialect(
    name="codearts",
    endpoints=V1_ENDPOINTS,
    authenticate=partial(authentication.authenticate, channel="codearts"),
    refuse=refuse,
    unknown_path=unknown_path,
    not_supported=not_supported,
    read_body=form.read_body,
)
V2 = replace(V1, endpoints=V2_ENDPOINTS)


def _failed(status: int, code: str, message: str) -> Response:
    return JSONResponse({"error": {"code": code, "message": message}, "status": "failed"}, status)


def _filled(call: Call, *names: str) -> None:
    for name in names:
        value = call.body.get(name)
        if value is None or (isinstance(value, str) and not value.strip()):
            raise invalid(name, f"{name} is empty.", "empty")
        if not isinstance(value, str):
            raise bodies.malformed(f"{name} takes a text.")


def _user_key(key: UserKey) -> dict[str, Any]:
    return {"id": str(key.id), "title": key.title, "key": key.line}


def _deploy_key(instance: Instance, key: DeployKey) -> dict[str, Any]:
    return {
        "key_id": str(key.id),
        "key_title": key.title,
        "key": key.line,
        "can_push": key.can_push,
        "created_at": created_at(instance, key.created_at),
    }
