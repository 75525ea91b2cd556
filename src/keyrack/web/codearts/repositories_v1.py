"""CodeArts Repo v1 and v2: repositories and members in their envelope; reads, calls the core, shows; no rule."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from keyrack.core.git import repositories
from keyrack.core.git.access import clone_address
from keyrack.core.instance import Instance
from keyrack.core.people import users
from keyrack.errors import Refusal, invalid
from keyrack.model import Workspace
from keyrack.store.repositories import Member, Repository
from keyrack.web.api import Call, Endpoint
from keyrack.web.codearts.form import ROLE_NUMBERS, created_at, pages, role, searched, text

MOST_NEW_MEMBERS = 100


def succeeded(result: object) -> Response:
    """An answer in v1's and v2's envelope."""
    return JSONResponse({"result": result, "status": "success"})


def create_repository(call: Call) -> Response:
    """Create a Git repository in a project"""
    created = repositories.create(
        call.instance,
        call.actor,
        name=text(call.body, "name"),
        project_uid=text(call.body, "project_uuid"),
        visibility=call.body.get("visibility_level", 0),
    )
    return succeeded({"repository_uuid": created.uid})


def show_repository(call: Call) -> Response:
    """Show a repository by its uuid"""
    return succeeded(_old(call.instance, repositories.get(call.instance, call.actor, _uid(call))))


def show_repository_v2(call: Call) -> Response:
    """Show a repository by its uuid (v2)"""
    found = repositories.get(call.instance, call.actor, _uid(call))
    return succeeded(_new(call.instance, users.own_workspace(call.instance, call.actor), found))


def delete_repository(call: Call) -> Response:
    """Delete a repository; nobody reaches it any more"""
    repositories.delete(call.instance, call.actor, _uid(call))
    return succeeded(True)


def list_project(call: Call) -> Response:
    """List the repositories of a project"""
    offset, limit = pages(call.query)
    found = repositories.find(
        call.instance,
        call.actor,
        project_uid=call.path["project_uuid"],
        search=searched(call.query, "search"),
        offset=offset,
        limit=limit,
    )
    return succeeded({"total": found.total, "repositorys": [_old(call.instance, item) for item in found.items]})


def list_all(call: Call) -> Response:
    """List all repositories that one may reach"""
    offset, limit = pages(call.query)
    found = repositories.find(
        call.instance,
        call.actor,
        project_uid=call.path.get("project_uuid"),
        search=searched(call.query, "search"),
        offset=offset,
        limit=limit,
    )
    workspace = users.own_workspace(call.instance, call.actor)
    shown = [_new(call.instance, workspace, repository) for repository in found.items]
    return succeeded({"total": found.total, "repositories": shown})


def list_project_v2(call: Call) -> Response:
    """List the repositories of a project (v2)"""
    return list_all(call)


def list_members(call: Call) -> Response:
    """List the members of a repository"""
    offset, limit = pages(call.query)
    found = repositories.members(
        call.instance,
        call.actor,
        _uid(call),
        search=searched(call.query, "subject"),
        offset=offset,
        limit=limit,
    )
    workspace = users.own_workspace(call.instance, call.actor)
    return succeeded({"total": found.total, "users": [_member(member, workspace) for member in found.items]})


def add_members(call: Call) -> Response:
    """Let users into a repository, and say of each how it went"""
    wanted = call.body.get("users")
    if not isinstance(wanted, list) or not 0 < len(wanted) <= MOST_NEW_MEMBERS:
        raise invalid("users", f"users takes a list of 1 to {MOST_NEW_MEMBERS} users.")
    repositories.may_add_members(call.instance, call.actor, _uid(call))
    results = []
    for item in wanted:
        sent = item if isinstance(item, dict) else {}
        outcome, message = "success", ""
        try:
            repositories.set_member(
                call.instance,
                call.actor,
                _uid(call),
                user_uid=text(sent, "id"),
                role=role(sent.get("role")),
                new=True,
            )
        except Refusal as refusal:
            outcome, message = "failed", refusal.message
        echoed = {name: str(sent.get(name, ""))[:255] for name in ("id", "name")}
        results.append({**echoed, "status": outcome, "message": message})
    return succeeded(results)


def change_member(call: Call) -> Response:
    """Change a member's role in a repository"""
    repositories.set_member(
        call.instance,
        call.actor,
        _uid(call),
        user_uid=call.path["member_id"],
        role=role(call.body.get("role")),
        new=False,
    )
    return succeeded({})


def remove_member(call: Call) -> Response:
    """Take a member out of a repository"""
    repositories.remove_member(call.instance, call.actor, _uid(call), user_uid=call.path["member_id"])
    return succeeded({})


V1_ENDPOINTS = (
    Endpoint("POST", "/repositories", create_repository),
    Endpoint("GET", "/repositories/{repository_uuid}", show_repository),
    Endpoint("DELETE", "/repositories/{repository_uuid}", delete_repository),
    Endpoint("GET", "/projects/{project_uuid}/repositories", list_project),
    Endpoint("GET", "/repositories/{repository_uuid}/members", list_members),
    Endpoint("POST", "/repositories/{repository_uuid}/members", add_members),
    Endpoint("PUT", "/repositories/{repository_uuid}/members/{member_id}", change_member),
    Endpoint("DELETE", "/repositories/{repository_uuid}/members/{member_id}", remove_member),
)
V2_ENDPOINTS = (
    Endpoint("GET", "/repositories/{repository_uuid}", show_repository_v2),
    Endpoint("GET", "/projects/repositories", list_all),
    Endpoint("GET", "/projects/{project_uuid}/repositories", list_project_v2),
)


def _uid(call: Call) -> str:
    return call.path["repository_uuid"]


def _old(instance: Instance, repository: Repository) -> dict[str, Any]:
    group, _, name = repository.path.rpartition("/")
    return {
        "id": repository.uid,
        "repoId": str(repository.id),
        "name": name,
        "groupName": group,
        "visibilityLevel": repository.visibility,
        "sshUrl": clone_address(instance, repository.path),
        "httpUrl": "",
        "createAt": created_at(instance, repository.created_at),
    }


def _new(instance: Instance, workspace: Workspace, repository: Repository) -> dict[str, Any]:
    group, _, name = repository.path.rpartition("/")
    return {
        "repository_uuid": repository.uid,
        "repository_id": repository.id,
        "repository_name": name,
        "group_name": group,
        "domain_name": workspace.name,
        "visibility_level": repository.visibility,
        "ssh_url": clone_address(instance, repository.path),
        "https_url": "",
        "created_at": created_at(instance, repository.created_at),
    }


def _member(member: Member, workspace: Workspace) -> dict[str, Any]:
    return {
        "user_id": member.user.uid,
        "name": member.user.name,
        "role": ROLE_NUMBERS[member.role],
        "domain_id": workspace.uid,
        "domain_name": workspace.name,
        "enabled": "true" if member.user.disabled_at is None else "false",
    }
