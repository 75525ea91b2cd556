"""CodeArts Repo v1: the members of a repository; reads, calls the core, shows; must hold no rule."""

from __future__ import annotations

from starlette.responses import Response

from keyrack.core.git import repositories
from keyrack.core.people import users
from keyrack.web.api import Call, Endpoint
from keyrack.web.codearts import new_members, parameters, shapes


def list_members(call: Call) -> Response:
    """List the members of a repository"""
    offset, limit = parameters.pages(call.query)
    page = repositories.members(
        call.instance,
        call.actor,
        call.path["repository_uuid"],
        search=parameters.searched(call.query, "subject"),
        offset=offset,
        limit=limit,
    )
    workspace = users.own_workspace(call.instance, call.actor)
    return shapes.succeeded(
        {"total": page.total, "users": [shapes.member_v1(member, workspace) for member in page.items]}
    )


def add_members(call: Call) -> Response:
    """Add members to a repository; the answer says for each whether it was added"""
    results = []
    for sent, message in new_members.add_each(call, call.path["repository_uuid"], user="id", role="role"):
        echoed = {name: str(sent.get(name, ""))[:255] for name in ("id", "name")}
        results.append({**echoed, "status": "failed" if message else "success", "message": message})
    return shapes.succeeded(results)


def change_member(call: Call) -> Response:
    """Change a member's role in a repository"""
    repositories.set_member(
        call.instance,
        call.actor,
        call.path["repository_uuid"],
        user_uid=call.path["member_id"],
        role=parameters.role(call.body.get("role")),
        new=False,
    )
    return shapes.succeeded({})


def remove_member(call: Call) -> Response:
    """Remove a member from a repository"""
    repositories.remove_member(call.instance, call.actor, call.path["repository_uuid"], user_uid=call.path["member_id"])
    return shapes.succeeded({})


ENDPOINTS = (
    Endpoint("GET", "/repositories/{repository_uuid}/members", list_members),
    Endpoint("POST", "/repositories/{repository_uuid}/members", add_members),
    Endpoint("PUT", "/repositories/{repository_uuid}/members/{member_id}", change_member),
    Endpoint("DELETE", "/repositories/{repository_uuid}/members/{member_id}", remove_member),
)
