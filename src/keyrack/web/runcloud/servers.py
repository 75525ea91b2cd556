"""RunCloud's servers and their logs; reads, calls the core, shows; must hold no rule of its own."""

from __future__ import annotations

from datetime import datetime
from functools import partial

from starlette.responses import JSONResponse, Response

from keyrack.core.audit import events
from keyrack.core.hosts import server_list, servers
from keyrack.core.validation import KEEP
from keyrack.model import EventFilter, Page, Server
from keyrack.web.api import Call, Endpoint
from keyrack.web.runcloud import shapes
from keyrack.web.runcloud.grammar import Fields, date, listed, window

# RunCloud's names for what hosts report: sizes in bytes, the load of one minute, the uptime in seconds.
MACHINE = {
    "kernelVersion": "kernel",
    "processorName": "processor",
    "totalCPUCore": "cores",
    "totalMemory": "memory_total",
    "freeMemory": "memory_free",
    "diskTotal": "disk_total",
    "diskFree": "disk_free",
    "loadAvg": "load",
    "uptime": "uptime",
}


def list_servers(call: Call) -> Response:
    """List the servers of the workspace"""
    page = server_list.find(call.instance, call.actor, search=call.query.get("search", ""), **window(call))
    return listed(call, page, partial(shapes.server, call.instance))


def list_shared_servers(call: Call) -> Response:
    """List servers that other workspaces share with yours: always empty"""
    page = servers.shared(call.instance, call.actor, **window(call))
    return listed(call, page, partial(shapes.server, call.instance))


def create_server(call: Call) -> Response:
    """Add a server; run its installation script on the host to enrol it"""
    fields = Fields(call)
    name, address = fields.text("name"), fields.text("ipAddress")
    provider = fields.text_or_none("provider")
    server = fields.through(
        partial(servers.create, call.instance, call.actor, name=name, address=address, provider=provider),
        partial(servers.wrong_fields, name=name or None, address=address or None, provider=provider),
    )
    return JSONResponse(shapes.server(call.instance, server))


def show_server(call: Call) -> Response:
    """Show a server, and whether its host is connected"""
    return JSONResponse(shapes.server(call.instance, servers.get(call.instance, call.actor, call.ids["serverId"])))


def delete_server(call: Call) -> Response:
    """Delete a server; its host removes the keys that Keyrack put there"""
    return JSONResponse(shapes.server(call.instance, servers.delete(call.instance, call.actor, call.ids["serverId"])))


def rename_server(call: Call) -> Response:
    """Rename a server, or change its provider"""
    fields = Fields(call)
    name = fields.text("name")
    provider = fields.text_or_none("provider") if fields.has("provider") else KEEP
    fields.check()
    server = servers.rename(call.instance, call.actor, call.ids["serverId"], name=name, provider=provider)
    return JSONResponse(shapes.server(call.instance, server))


def show_installation_script(call: Call) -> Response:
    """Make the command that enrols a host, to be run there as root; its token works once, within a day"""
    line = servers.installation_line(call.instance, call.actor, call.ids["serverId"])
    return JSONResponse({"script": line})


def list_logs(call: Call) -> Response:
    """List a server's log, newest first: what was done to it and what its host reported"""
    asked = EventFilter(server_id=call.ids["serverId"], search=call.query.get("search", ""))
    page = events.find(call.instance, call.actor, asked, **window(call))
    return listed(call, page, shapes.log)


def show_machine(call: Call) -> Response:
    """Show a host's hardware, load and uptime as last reported; null for what it did not report"""
    server = servers.get(call.instance, call.actor, call.ids["serverId"])
    machine = server.facts.get("machine") or {}
    at = machine.get("at")
    shown = {name: machine.get(fact) for name, fact in MACHINE.items()}
    return JSONResponse({**shown, "updated_at": None if at is None else date(datetime.fromisoformat(at))})


def list_nothing_of_a_server(call: Call) -> Response:
    """List something that Keyrack does not manage on a server: always empty, for programs that ask for it"""
    servers.get(call.instance, call.actor, call.ids["serverId"])
    return _empty(call)


def list_nothing(call: Call) -> Response:
    """List something that Keyrack does not have: always empty, for programs that ask for it"""
    servers.shared(call.instance, call.actor)
    return _empty(call)


ENDPOINTS = (
    Endpoint("GET", "/servers", list_servers, "servers:read", on_event_loop=True),
    Endpoint("POST", "/servers", create_server, "servers:write"),
    # Before the path with an id, which would take "shared" for one.
    Endpoint("GET", "/servers/shared", list_shared_servers, "servers:read"),
    Endpoint("GET", "/servers/{serverId}", show_server, "servers:read", on_event_loop=True),
    Endpoint("DELETE", "/servers/{serverId}", delete_server, "servers:write"),
    Endpoint("PATCH", "/servers/{serverId}/settings/meta", rename_server, "servers:write"),
    Endpoint("GET", "/servers/{serverId}/installationscript", show_installation_script, "servers:write"),
    Endpoint("GET", "/servers/{serverId}/installationScript", show_installation_script, "servers:write"),
    Endpoint("GET", "/servers/{serverId}/logs", list_logs, "events:read"),
    Endpoint("GET", "/servers/{serverId}/stats", show_machine, "servers:read"),
    Endpoint("GET", "/servers/{serverId}/hardwareinfo", show_machine, "servers:read"),
    Endpoint("GET", "/servers/{serverId}/hardwareInfo", show_machine, "servers:read"),
    Endpoint("GET", "/servers/{serverId}/health/latest", show_machine, "servers:read"),
    Endpoint("GET", "/servers/{serverId}/security/firewalls", list_nothing_of_a_server, "servers:read"),
    Endpoint("GET", "/servers/{serverId}/security/fail2ban/blockedip", list_nothing_of_a_server, "servers:read"),
    Endpoint("GET", "/settings/externalapi", list_nothing, "servers:read"),
)


def _empty(call: Call) -> Response:
    nothing: Page[Server] = Page(items=(), total=0, **window(call))
    return listed(call, nothing, partial(shapes.server, call.instance))
