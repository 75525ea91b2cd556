"""Keyrack's own API: servers, their status, and enrolment of their hosts; must hold no rule of its own."""

from __future__ import annotations

from keyrack.core.hosts import copies, deleted_servers, modes, named_servers, server_changes, server_list, servers
from keyrack.core.validation import KEEP
from keyrack.web.api import Call
from keyrack.web.native import parameters
from keyrack.web.native import shapes_servers as shapes
from keyrack.web.native.calls import endpoint
from keyrack.web.native.shapes import Search, Window


def list_servers(call: Call, asked: Search) -> shapes.ServerPage:
    """List servers, each with its status"""
    page = server_list.find(call.instance, call.actor, search=asked.search, **asked.window())
    return shapes.ServerPage.of(page, lambda server: shapes.server(call.instance, server))


def show_server(call: Call) -> shapes.Server:
    """Show a server with its status"""
    return shapes.server(call.instance, parameters.server(call))


def list_deleted_servers(call: Call, asked: Window) -> shapes.DeletedServerPage:
    """List deleted servers that had a host, and when the host confirmed that Keyrack's keys open it no more"""
    page = deleted_servers.find(call.instance, call.actor, **asked.window())
    return shapes.DeletedServerPage.of(page, shapes.deleted_server)


def put_server(call: Call, wanted: shapes.WantedServer) -> shapes.Server:
    """Create a server, or change it, with this address, tags, mode and accounts"""
    given = wanted.model_fields_set
    server = named_servers.put(
        call.instance,
        call.actor,
        call.path["server"],
        address=KEEP if wanted.address is None else wanted.address,
        provider=wanted.provider if "provider" in given else KEEP,
        tags=wanted.tags,
        mode=wanted.mode,
        accounts=wanted.system_users,
    )
    return shapes.server(call.instance, server)


def change_server(call: Call, change: shapes.ServerChange) -> shapes.Server:
    """Change name, address, provider, tags or mode of a server"""
    given = change.model_fields_set
    server = server_changes.change(
        call.instance,
        call.actor,
        parameters.server_id(call),
        name=KEEP if change.name is None else change.name,
        address=KEEP if change.address is None else change.address,
        provider=change.provider if "provider" in given else KEEP,
        tags=change.tags,
        mode=change.mode,
    )
    return shapes.server(call.instance, server)


def delete_server(call: Call) -> None:
    """Delete a server with its keys; its host applies that at its next contact"""
    servers.delete(call.instance, call.actor, parameters.server_id(call))


def show_offline_policy(call: Call) -> shapes.HeldPolicy:
    """Show a host's offline policy"""
    return shapes.held_policy(parameters.server(call))


def set_offline_policy_of_server(call: Call, policy: shapes.OfflinePolicy) -> shapes.Servers:
    """Set a host's offline policy: what it does while it cannot reach the service"""
    return _set_offline_policy(call, policy, server_id=parameters.server_id(call))


def set_offline_policy_of_tag(call: Call, policy: shapes.OfflinePolicy) -> shapes.Servers:
    """Set the offline policy of all hosts with a tag"""
    return _set_offline_policy(call, policy, tag=call.path["tag"])


def go_on_without_copy(call: Call) -> shapes.Server:
    """Confirm that one of two machines with a server's identity is gone; if both still ask, the alarm comes again"""
    return shapes.server(call.instance, copies.settle(call.instance, call.actor, parameters.server_id(call)))


def enrol(call: Call, wanted: shapes.NewEnrolment) -> shapes.Enrolment:
    """Make the command line that enrols a server's host, with a one-time token"""
    server_id = parameters.server_id(call)
    line = servers.installation_line(call.instance, call.actor, server_id, replace=wanted.replace)
    return shapes.Enrolment(line=line)


def _set_offline_policy(
    call: Call, policy: shapes.OfflinePolicy, *, server_id: int | None = None, tag: str | None = None
) -> shapes.Servers:
    changed = modes.set_offline_policy(
        call.instance,
        call.actor,
        after_seconds=policy.after_seconds,
        then=policy.then,
        server_id=server_id,
        tag=tag,
    )
    return shapes.Servers(items=[shapes.server(call.instance, server) for server in changed])


ENDPOINTS = (
    endpoint("GET", "/servers", list_servers, "servers:read", asks=Search, answers=shapes.ServerPage),
    endpoint("GET", "/servers/{server}", show_server, "servers:read", answers=shapes.Server),
    endpoint(
        "GET",
        "/deleted-servers",
        list_deleted_servers,
        "servers:read",
        asks=Window,
        answers=shapes.DeletedServerPage,
    ),
    endpoint(
        "PUT",
        "/servers/{server}",
        put_server,
        "servers:write",
        takes=shapes.WantedServer,
        answers=shapes.Server,
        first=lambda call: named_servers.may_put(call.instance, call.actor),  # which server need not be there
    ),
    endpoint(
        "PATCH",
        "/servers/{server}",
        change_server,
        "servers:write",
        takes=shapes.ServerChange,
        answers=shapes.Server,
    ),
    endpoint("DELETE", "/servers/{server}", delete_server, "servers:write"),
    endpoint("GET", "/servers/{server}/offline-policy", show_offline_policy, "servers:read", answers=shapes.HeldPolicy),
    endpoint(
        "PUT",
        "/servers/{server}/offline-policy",
        set_offline_policy_of_server,
        "servers:write",
        takes=shapes.OfflinePolicy,
        answers=shapes.Servers,
    ),
    endpoint(
        "PUT",
        "/tags/{tag}/offline-policy",
        set_offline_policy_of_tag,
        "servers:write",
        takes=shapes.OfflinePolicy,
        answers=shapes.Servers,
        first=lambda call: modes.may_set_offline_policy(call.instance, call.actor, call.path["tag"]),
    ),
    endpoint("POST", "/servers/{server}/copy-gone", go_on_without_copy, "servers:write", answers=shapes.Server),
    endpoint(
        "POST",
        "/servers/{server}/enrolments",
        enrol,
        "servers:write",
        takes=shapes.NewEnrolment,
        answers=shapes.Enrolment,
        status=201,
    ),
)
