"""CodeArts Repo v4: repositories; reads, calls the core, shows; must hold no rule."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from keyrack.core.git import repositories
from keyrack.web.api import Call, Endpoint
from keyrack.web.codearts import parameters, shapes


def show_repository(call: Call) -> Response:
    """Show a repository, with its clone address"""
    repository = repositories.get(call.instance, call.actor, call.ids["repository_id"])
    return JSONResponse(shapes.repository(call.instance, repository))


def list_user_repositories(call: Call) -> Response:
    """List the repositories that you may reach"""
    return _listed(call, None)


def list_project_repositories(call: Call) -> Response:
    """List the repositories of a project"""
    return _listed(call, call.path["project_id"])


ENDPOINTS = (
    Endpoint("GET", "/repositories/{repository_id}", show_repository),
    Endpoint("GET", "/user/repositories", list_user_repositories),
    Endpoint("GET", "/projects/{project_id}/repositories", list_project_repositories),
)


def _listed(call: Call, project_uid: str | None) -> Response:
    offset, limit = parameters.window(call.query)
    page = repositories.find(
        call.instance,
        call.actor,
        project_uid=project_uid,
        search=parameters.searched(call.query, "search"),
        offset=offset,
        limit=limit,
    )
    return shapes.counted([shapes.repository(call.instance, repository) for repository in page.items], page.total)
