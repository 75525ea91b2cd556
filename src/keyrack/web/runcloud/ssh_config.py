"""RunCloud's SSH settings and SSH sessions of a server; reads, calls the core, shows; must hold no rule."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from keyrack.core.hosts import sessions, sshd_settings
from keyrack.core.hosts.sshd_settings import SshSettings
from keyrack.web.api import Call, Endpoint
from keyrack.web.runcloud import shapes
from keyrack.web.runcloud.grammar import SPELLINGS, Fields, listed, window

CONTRACT_SETTINGS = ("passwordless_login", "use_dns", "prevent_root_login")
"""The settings in RunCloud's API, by the core's names; the core has more."""


def show_config(call: Call) -> Response:
    """Show a server's SSH settings"""
    return JSONResponse(shapes.config(sshd_settings.get(call.instance, call.actor, call.ids["serverId"])))


def change_config(call: Call) -> Response:
    """Change a server's SSH settings; what is left out stays"""
    return JSONResponse(shapes.config(_change(call)))


def show_settings(call: Call) -> Response:
    """Show only the three SSH settings of a server"""
    return JSONResponse(shapes.ssh_settings(sshd_settings.get(call.instance, call.actor, call.ids["serverId"])))


def change_settings(call: Call) -> Response:
    """Change the three SSH settings of a server; what is left out stays"""
    return JSONResponse(shapes.ssh_settings(_change(call)))


def list_sessions(call: Call) -> Response:
    """List the open SSH logins on a server, each with its key"""
    return listed(call, sessions.find(call.instance, call.actor, call.ids["serverId"], **window(call)), shapes.session)


def end_session(call: Call) -> Response:
    """End an open SSH login on a server"""
    ended = sessions.end(call.instance, call.actor, call.ids["serverId"], call.ids["sessionId"])
    return JSONResponse(shapes.session(ended))


ENDPOINTS = (
    Endpoint("GET", "/servers/{serverId}/ssh/config", show_config, "sshconfig:read"),
    Endpoint("PATCH", "/servers/{serverId}/ssh/config", change_config, "sshconfig:write"),
    Endpoint("GET", "/servers/{serverId}/settings/ssh", show_settings, "sshconfig:read"),
    Endpoint("PATCH", "/servers/{serverId}/settings/ssh", change_settings, "sshconfig:write"),
    Endpoint("GET", "/servers/{serverId}/ssh/sessions", list_sessions, "sessions:read"),
    Endpoint("DELETE", "/servers/{serverId}/ssh/sessions/{sessionId}", end_session, "sessions:write"),
)


def _change(call: Call) -> SshSettings:
    fields = Fields(call)
    wishes = {name: fields.boolean(SPELLINGS[name]) for name in CONTRACT_SETTINGS if fields.has(SPELLINGS[name])}
    fields.check()
    return sshd_settings.change(call.instance, call.actor, call.ids["serverId"], wishes)
