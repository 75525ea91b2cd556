"""IAM: projects, domains, users and the caller; reads, calls the core, shows; must hold no rule of its own."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from keyrack.core.people import users
from keyrack.errors import invalid
from keyrack.model import Role, User
from keyrack.web.api import Call, Endpoint
from keyrack.web.iam import shapes
from keyrack.web.iam.parameters import part, text


def list_projects(call: Call) -> Response:
    """List projects; SDKs look up a region here by its name"""
    projects = users.projects(call.instance, call.actor, call.query.get("name"))
    workspace = users.own_workspace(call.instance, call.actor)
    shown = [shapes.project(call.instance, project, workspace) for project in projects]
    return JSONResponse({"projects": shown, "links": shapes.links(call)})


def list_own_projects(call: Call) -> Response:
    """List the projects that you may reach"""
    return list_projects(call)


def list_domains(call: Call) -> Response:
    """Show the workspace, which IAM calls a domain"""
    workspace = users.own_workspace(call.instance, call.actor)
    domain = shapes.domain(call.instance, workspace)
    return JSONResponse({"domains": [domain], "links": shapes.links(call)})


def list_users(call: Call) -> Response:
    """List the users of the workspace"""
    name = call.query.get("name")
    matching = [user for user in users.find(call.instance, call.actor) if name in (None, user.name)]
    workspace = users.workspace_of(call.instance, call.actor)
    return JSONResponse(
        {"users": [shapes.user(call.instance, user, workspace) for user in matching], "links": shapes.links(call)}
    )


def create_user(call: Call) -> Response:
    """Add a user, as a member without any policy"""
    sent = part(call.body, "user")
    user = users.create_user(
        call.instance, call.actor, name=sent.get("name"), role=Role.MEMBER, password=text(sent, "password")
    )
    return _shown(call, user, 201)


def show_user(call: Call) -> Response:
    """Show a user"""
    return _shown(call, users.get(call.instance, call.actor, call.path["user_id"]))


def change_user(call: Call) -> Response:
    """Enable or disable a user, or set another user's password"""
    sent = part(call.body, "user")
    user = users.get(call.instance, call.actor, call.path["user_id"])
    password, enabled = text(sent, "password"), sent.get("enabled")
    if enabled is not None and not isinstance(enabled, bool):
        raise invalid("enabled", "enabled takes true or false.")
    if password is None and enabled is None:
        raise invalid("user", "Send enabled or password; nothing else can be changed here.")
    if password is not None and user.id == call.actor.user_id:
        raise invalid("password", "Change your own password with POST /v3/users/{user_id}/password.")
    return _shown(call, users.change(call.instance, call.actor, user.id, password=password, enabled=enabled))


def delete_user(call: Call) -> Response:
    """Delete a user with all keys and tokens"""
    user = users.get(call.instance, call.actor, call.path["user_id"])
    users.delete_user(call.instance, call.actor, user.id)
    return Response(status_code=204)


def change_own_password(call: Call) -> Response:
    """Change your own password"""
    sent = part(call.body, "user")
    user = users.get(call.instance, call.actor, call.path["user_id"])
    if user.id != call.actor.user_id:
        raise invalid("user_id", "This call changes only the caller's own password.")
    original, password = text(sent, "original_password"), text(sent, "password")
    if original is None or password is None:
        raise invalid("password", "Send original_password and password.")
    users.change_own_password(call.instance, call.actor, original=original, password=password)
    return Response(status_code=204)


def caller_identity(call: Call) -> Response:
    """Show the workspace and the user of a signed request"""
    workspace = users.own_workspace(call.instance, call.actor)
    user = users.myself(call.instance, call.actor)
    return JSONResponse(
        {
            "account_id": workspace.uid,
            "principal_id": user.uid,
            "principal_urn": f"iam::{workspace.uid}:user:{user.name}",
        }
    )


V3_ENDPOINTS = (
    Endpoint("GET", "/projects", list_projects),
    Endpoint("GET", "/auth/projects", list_own_projects),
    Endpoint("GET", "/auth/domains", list_domains),
    Endpoint("GET", "/users", list_users),
    Endpoint("POST", "/users", create_user, hashes=True),
    Endpoint("GET", "/users/{user_id}", show_user),
    Endpoint("PATCH", "/users/{user_id}", change_user, hashes=True),
    Endpoint("DELETE", "/users/{user_id}", delete_user),
    Endpoint("POST", "/users/{user_id}/password", change_own_password, hashes=True),
)
V5_ENDPOINTS = (Endpoint("GET", "/caller-identity", caller_identity),)


def _shown(call: Call, user: User, status: int = 200) -> Response:
    # Without a further check of rights: a refusal would say that the change was not made, which it was.
    return JSONResponse(
        {"user": shapes.user(call.instance, user, users.workspace_of(call.instance, call.actor))}, status
    )
