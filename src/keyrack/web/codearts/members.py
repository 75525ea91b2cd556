"""CodeArts Repo v4: the members of a repository; reads, calls the core, shows; must hold no rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

from keyrack.core.git import repositories
from keyrack.core.people import users
from keyrack.errors import Refusal, invalid
from keyrack.web.api import Call, Endpoint
from keyrack.web.codearts import parameters, shapes

MOST_NEW_MEMBERS = 100


def list_members(call: Call) -> Response:
    """List who may read or write a repository"""
    offset, limit = parameters.window(call.query)
    actions = {action for action in call.query.get("action", "").split(",") if action}
    found = repositories.members(
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
    shown = [shapes.member(member, repository, workspace) for member in found.items]
    return shapes.counted(shown, found.total)


def add_members(call: Call) -> Response:
    """Let users into a repository, and say of each how it went"""
    repositories.may_add_members(call.instance, call.actor, call.ids["repository_id"])
    wanted = call.body.get("users")
    if not isinstance(wanted, list) or not 0 < len(wanted) <= MOST_NEW_MEMBERS:
        raise invalid("users", f"users takes a list of 1 to {MOST_NEW_MEMBERS} users.")
    done: dict[str, list[dict[str, Any]]] = {"success": [], "error": []}
    for item in wanted:
        sent: Mapping[str, Any] = item if isinstance(item, dict) else {}
        outcome, message = "success", ""
        try:
            repositories.set_member(
                call.instance,
                call.actor,
                call.ids["repository_id"],
                user_uid=parameters.text(sent, "user_iam_id"),
                role=parameters.role(sent.get("repository_role_Id")),
                new=True,
            )
        except Refusal as refusal:
            outcome, message = "error", refusal.message
        names = ("user_iam_id", "user_name", "tenant_name", "tenant_id", "repository_role_Id")
        echoed = {name: str(sent[name])[:255] for name in names if isinstance(sent.get(name), str | int)}
        done[outcome].append({**echoed, "status": outcome, "message": message})
    return JSONResponse([{"status": outcome, "result": result} for outcome, result in done.items() if result])


ENDPOINTS = (
    Endpoint("GET", "/repositories/{repository_id}/members", list_members),
    Endpoint("POST", "/repositories/{repository_id}/members", add_members),
)
