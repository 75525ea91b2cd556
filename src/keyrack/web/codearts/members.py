"""CodeArts Repo v4: the members of a repository; reads, calls the core, shows; must hold no rule."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from keyrack.core.git import repositories
from keyrack.core.people import users
from keyrack.web.api import Call, Endpoint
from keyrack.web.codearts import new_members, parameters, shapes


def list_members(call: Call) -> Response:
    """List the members of a repository"""
    offset, limit = parameters.window(call.query)
    actions = {action for action in call.query.get("action", "").split(",") if action}
    page = repositories.members(
        call.instance,
        call.actor,
        call.ids["repository_id"],
        search=parameters.searched(call.query, "search"),
        writers=call.query.get("permission") == "code" and "push" in actions,
        offset=offset,
        limit=limit,
    )
    repository = repositories.get(call.instance, call.actor, call.ids["repository_id"])
    workspace = users.own_workspace(call.instance, call.actor)
    shown = [shapes.member(member, repository, workspace) for member in page.items]
    return shapes.counted(shown, page.total)


def add_members(call: Call) -> Response:
    """Add members to a repository; the answer says for each whether it was added"""
    done: dict[str, list[dict[str, Any]]] = {"success": [], "error": []}
    repository = call.ids["repository_id"]
    for sent, message in new_members.add_each(call, repository, user="user_iam_id", role="repository_role_Id"):
        outcome = "error" if message else "success"
        names = ("user_iam_id", "user_name", "tenant_name", "tenant_id", "repository_role_Id")
        echoed = {name: str(sent[name])[:255] for name in names if isinstance(sent.get(name), str | int)}
        done[outcome].append({**echoed, "status": outcome, "message": message})
    return JSONResponse([{"status": outcome, "result": result} for outcome, result in done.items() if result])


ENDPOINTS = (
    Endpoint("GET", "/repositories/{repository_id}/members", list_members),
    Endpoint("POST", "/repositories/{repository_id}/members", add_members),
)
