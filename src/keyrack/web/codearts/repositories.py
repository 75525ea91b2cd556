"""CodeArts Repo v4: repositories, members and deploy keys; reads, calls the core, shows; must hold no rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

from keyrack.core.git import deploy_keys, repositories
from keyrack.core.git.access import clone_address
from keyrack.core.instance import Instance
from keyrack.core.people import users
from keyrack.errors import Refusal, invalid, missing
from keyrack.model import Workspace
from keyrack.store.deploy_keys import DeployKey
from keyrack.store.repositories import Member, Repository
from keyrack.web.api import Call, Endpoint
from keyrack.web.codearts.form import ROLE_NUMBERS, VISIBILITIES, created_at, role, searched, text, window

MOST_NEW_MEMBERS = 100


def show_repository(call: Call) -> Response:
    """Show a repository, with its clone address"""
    found = repositories.get(call.instance, call.actor, call.ids["repository_id"])
    return JSONResponse(_repository(call.instance, found))


def list_user_repositories(call: Call) -> Response:
    """List the repositories that one may reach"""
    return _repositories(call, None)


def list_project_repositories(call: Call) -> Response:
    """List the repositories of a project"""
    return _repositories(call, call.path["project_id"])


def list_members(call: Call) -> Response:
    """List who may read or write a repository"""
    offset, limit = window(call.query)
    actions = {action for action in call.query.get("action", "").split(",") if action}
    found = repositories.members(
        call.instance,
        call.actor,
        call.ids["repository_id"],
        search=searched(call.query, "search"),
        writers=call.query.get("permission") == "code" and "push" in actions,
        offset=offset,
        limit=limit,
    )
    repository = repositories.get(call.instance, call.actor, call.ids["repository_id"])
    workspace = users.own_workspace(call.instance, call.actor)
    shown = [_member(member, repository, workspace) for member in found.items]
    return _counted(shown, found.total)


def add_members(call: Call) -> Response:
    """Let users into a repository, and say of each how it went"""
    wanted = call.body.get("users")
    if not isinstance(wanted, list) or not 0 < len(wanted) <= MOST_NEW_MEMBERS:
        raise invalid("users", f"users takes a list of 1 to {MOST_NEW_MEMBERS} users.")
    repositories.may_add_members(call.instance, call.actor, call.ids["repository_id"])
    done: dict[str, list[dict[str, Any]]] = {"success": [], "error": []}
    for item in wanted:
        sent: Mapping[str, Any] = item if isinstance(item, dict) else {}
        outcome, message = "success", ""
        try:
            repositories.set_member(
                call.instance,
                call.actor,
                call.ids["repository_id"],
                user_uid=text(sent, "user_iam_id"),
                role=role(sent.get("repository_role_Id")),
                new=True,
            )
        except Refusal as refusal:
            outcome, message = "error", refusal.message
        names = ("user_iam_id", "user_name", "tenant_name", "tenant_id", "repository_role_Id")
        echoed = {name: str(sent[name])[:255] for name in names if isinstance(sent.get(name), str | int)}
        done[outcome].append({**echoed, "status": outcome, "message": message})
    return JSONResponse([{"status": outcome, "result": result} for outcome, result in done.items() if result])


def list_deploy_keys(call: Call) -> Response:
    """List the deploy keys of a repository"""
    offset, limit = window(call.query)
    found = deploy_keys.find(call.instance, call.actor, call.ids["repository_id"], offset=offset, limit=limit)
    return _counted([_deploy_key(call.instance, key) for key in found.items], found.total)


def check_deploy_key(call: Call) -> Response:
    """Say whether a key is a deploy key already"""
    exists = deploy_keys.known(call.instance, call.actor, call.ids["repository_id"], call.body.get("key"))
    return JSONResponse({"exists": exists})


def delete_deploy_key(call: Call) -> Response:
    """Take a deploy key from a repository"""
    deploy_keys.delete(call.instance, call.actor, call.ids["repository_id"], call.ids["key_id"])
    return Response(status_code=204)


def list_project_deploy_keys(call: Call) -> Response:
    """List the deploy keys of a project: none, as they belong to repositories alone"""
    window(call.query)
    uid = call.path["project_id"]
    if all(project.uid != uid for project in users.projects(call.instance, call.actor)):
        raise missing("project")
    return _counted([], 0)


DEPLOY_KEYS = "/repositories/{repository_id}/deploy-keys"
ENDPOINTS = (
    Endpoint("GET", "/repositories/{repository_id}", show_repository),
    Endpoint("GET", "/user/repositories", list_user_repositories),
    Endpoint("GET", "/projects/{project_id}/repositories", list_project_repositories),
    Endpoint("GET", "/repositories/{repository_id}/members", list_members),
    Endpoint("POST", "/repositories/{repository_id}/members", add_members),
    Endpoint("GET", DEPLOY_KEYS, list_deploy_keys),
    Endpoint("POST", DEPLOY_KEYS + "/check-key", check_deploy_key),
    Endpoint("DELETE", DEPLOY_KEYS + "/{key_id}", delete_deploy_key),
    Endpoint("GET", "/projects/{project_id}/deploy-keys", list_project_deploy_keys),
)


def _counted(items: list[dict[str, Any]], total: int) -> Response:
    """v4's lists are bare arrays; how many there are in all stands in a header."""
    return JSONResponse(items, headers={"X-Total": str(total)})


def _repositories(call: Call, project_uid: str | None) -> Response:
    offset, limit = window(call.query)
    found = repositories.find(
        call.instance,
        call.actor,
        project_uid=project_uid,
        search=searched(call.query, "search"),
        offset=offset,
        limit=limit,
    )
    return _counted([_repository(call.instance, repository) for repository in found.items], found.total)


def _repository(instance: Instance, repository: Repository) -> dict[str, Any]:
    group, _, name = repository.path.rpartition("/")
    return {
        "id": repository.id,
        "uuid": repository.uid,
        "name": name,
        "path": name,
        "namespace": {"path": group, "full_path": group, "name": group},
        "name_with_namespace": repository.path,
        "path_with_namespace": repository.path,
        "visibility": VISIBILITIES[repository.visibility],
        "default_branch": repository.default_branch,
        "creator_id": repository.created_by,
        "created_at": created_at(instance, repository.created_at),
        "ssh_url_to_repo": clone_address(instance, repository.path),
        "http_url_to_repo": "",
        "archived": False,
    }


def _member(member: Member, repository: Repository, workspace: Workspace) -> dict[str, Any]:
    return {
        "user_id": member.user.id,
        "user_iam_id": member.user.uid,
        "user_name": member.user.name,
        "user_nick_name": member.user.name,
        "tenant_name": workspace.name,
        "tenant_id": workspace.uid,
        "is_repo_creator": int(member.user.id == repository.created_by),
        "repository_role_name": member.role.value,
        "repository_role_Id": str(ROLE_NUMBERS[member.role]),
        "action_enabled": member.user.disabled_at is None,
    }


def _deploy_key(instance: Instance, key: DeployKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "title": key.title,
        "fingerprint": key.fingerprint,
        "created_at": created_at(instance, key.created_at),
    }
