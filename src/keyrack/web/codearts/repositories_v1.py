"""CodeArts Repo v1 and v2: repositories in their envelope; reads, calls the core, shows; must hold no rule."""

from __future__ import annotations

from starlette.responses import Response

from keyrack.core.git import repositories
from keyrack.core.people import users
from keyrack.web.api import Call, Endpoint
from keyrack.web.codearts import parameters, shapes


def create_repository(call: Call) -> Response:
    """Create a Git repository in a project"""
    created = repositories.create(
        call.instance,
        call.actor,
        name=parameters.text(call.body, "name"),
        project_uid=parameters.text(call.body, "project_uuid"),
        visibility=call.body.get("visibility_level", 0),
    )
    return shapes.succeeded({"repository_uuid": created.uid})


def show_repository(call: Call) -> Response:
    """Show a repository by its uuid"""
    return shapes.succeeded(
        shapes.repository_v1(call.instance, repositories.get(call.instance, call.actor, call.path["repository_uuid"]))
    )


def show_repository_v2(call: Call) -> Response:
    """Show a repository by its uuid (v2)"""
    repository = repositories.get(call.instance, call.actor, call.path["repository_uuid"])
    return shapes.succeeded(
        shapes.repository_v2(call.instance, users.own_workspace(call.instance, call.actor), repository)
    )


def delete_repository(call: Call) -> Response:
    """Delete a repository"""
    repositories.delete(call.instance, call.actor, call.path["repository_uuid"])
    return shapes.succeeded(True)


def list_project(call: Call) -> Response:
    """List the repositories of a project"""
    offset, limit = parameters.pages(call.query)
    page = repositories.find(
        call.instance,
        call.actor,
        project_uid=call.path["project_uuid"],
        search=parameters.searched(call.query, "search"),
        offset=offset,
        limit=limit,
    )
    return shapes.succeeded(
        {"total": page.total, "repositorys": [shapes.repository_v1(call.instance, item) for item in page.items]}
    )


def list_all(call: Call) -> Response:
    """List all repositories that you may reach"""
    offset, limit = parameters.pages(call.query)
    page = repositories.find(
        call.instance,
        call.actor,
        project_uid=call.path.get("project_uuid"),
        search=parameters.searched(call.query, "search"),
        offset=offset,
        limit=limit,
    )
    workspace = users.own_workspace(call.instance, call.actor)
    shown = [shapes.repository_v2(call.instance, workspace, repository) for repository in page.items]
    return shapes.succeeded({"total": page.total, "repositories": shown})


def list_project_v2(call: Call) -> Response:
    """List the repositories of a project (v2)"""
    return list_all(call)


V1_ENDPOINTS = (
    Endpoint("POST", "/repositories", create_repository),
    Endpoint("GET", "/repositories/{repository_uuid}", show_repository),
    Endpoint("DELETE", "/repositories/{repository_uuid}", delete_repository),
    Endpoint("GET", "/projects/{project_uuid}/repositories", list_project),
)
V2_ENDPOINTS = (
    Endpoint("GET", "/repositories/{repository_uuid}", show_repository_v2),
    Endpoint("GET", "/projects/repositories", list_all),
    Endpoint("GET", "/projects/{project_uuid}/repositories", list_project_v2),
)
