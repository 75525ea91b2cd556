"""CodeArts Repo v1 and v2: deploy keys; reads, calls the core, shows; must hold no rule."""

from __future__ import annotations

from starlette.responses import Response

from keyrack.core.git import deploy_keys
from keyrack.errors import invalid
from keyrack.web.api import Call, Endpoint
from keyrack.web.codearts import parameters, refusals, shapes

SPELLINGS = {**refusals.SPELLINGS, "title": "key_title"}


def add_deploy_key(call: Call) -> Response:
    """Add a read-only deploy key to a repository"""
    deploy_keys.may_add(call.instance, call.actor, call.ids["repository_id"])
    parameters.filled(call, "key_title", "key", "application")
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
    return shapes.succeeded(shapes.deploy_key_v1(call.instance, key))


def delete_deploy_key(call: Call) -> Response:
    """Remove a deploy key from a repository"""
    deploy_keys.delete(call.instance, call.actor, call.ids["repository_id"], call.ids["key_id"])
    return shapes.succeeded(True)


V1_ENDPOINTS = (
    Endpoint("POST", "/repositories/{repository_id}/deploy_keys", add_deploy_key),
    Endpoint("DELETE", "/repositories/{repository_id}/deploy_keys/{key_id}", delete_deploy_key),
)
V2_ENDPOINTS = (
    Endpoint("POST", "/repositories/{repository_id}/deploy-keys", add_deploy_key),
    Endpoint("DELETE", "/repositories/{repository_id}/deploy-keys/{key_id}", delete_deploy_key),
)
