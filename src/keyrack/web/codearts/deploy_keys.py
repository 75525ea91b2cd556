"""CodeArts Repo v4: deploy keys; reads, calls the core, shows; must hold no rule."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from keyrack.core.git import deploy_keys
from keyrack.core.people import users
from keyrack.errors import missing
from keyrack.web.api import Call, Endpoint
from keyrack.web.codearts import parameters, shapes

PATH = "/repositories/{repository_id}/deploy-keys"


def list_deploy_keys(call: Call) -> Response:
    """List the deploy keys of a repository"""
    offset, limit = parameters.window(call.query)
    page = deploy_keys.find(call.instance, call.actor, call.ids["repository_id"], offset=offset, limit=limit)
    return shapes.counted([shapes.deploy_key(call.instance, key) for key in page.items], page.total)


def check_deploy_key(call: Call) -> Response:
    """Check whether a key is a deploy key of the repository already"""
    exists = deploy_keys.known(call.instance, call.actor, call.ids["repository_id"], call.body.get("key"))
    return JSONResponse({"exists": exists})


def delete_deploy_key(call: Call) -> Response:
    """Remove a deploy key from a repository"""
    deploy_keys.delete(call.instance, call.actor, call.ids["repository_id"], call.ids["key_id"])
    return Response(status_code=204)


def list_project_deploy_keys(call: Call) -> Response:
    """List the deploy keys of a project: always empty, as only repositories have deploy keys"""
    parameters.window(call.query)
    users.project(call.instance, call.actor, call.path["project_id"])
    return shapes.counted([], 0)


def list_group_deploy_keys(call: Call) -> Response:
    """List the deploy keys of a group: always 404, as there are no groups"""
    parameters.window(call.query)
    raise missing("group")


def check_group_deploy_key(call: Call) -> Response:
    """Check whether a key is a deploy key of a group: always 404, as there are no groups"""
    raise missing("group")


ENDPOINTS = (
    Endpoint("GET", PATH, list_deploy_keys),
    Endpoint("POST", PATH + "/check-key", check_deploy_key),
    Endpoint("DELETE", PATH + "/{key_id}", delete_deploy_key),
    Endpoint("GET", "/projects/{project_id}/deploy-keys", list_project_deploy_keys),
    Endpoint("GET", "/groups/{group_id}/deploy-keys", list_group_deploy_keys),
    Endpoint("POST", "/groups/{group_id}/deploy-keys/check-key", check_group_deploy_key),
)
