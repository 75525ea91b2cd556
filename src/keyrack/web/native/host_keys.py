"""Keyrack's own API: host keys, and which servers a user may log in on; must hold no rule of its own."""

from __future__ import annotations

from keyrack.core.hosts import host_keys
from keyrack.web.api import Call
from keyrack.web.native import shapes_host_keys as shapes
from keyrack.web.native.calls import endpoint

PATH = "/servers/{server}/host-keys"


def list_host_keys(call: Call) -> shapes.HostKeys:
    """List the host keys of a server"""
    return shapes.host_keys(host_keys.find(call.instance, call.actor, call.path["server"]))


def confirm_host_keys(call: Call, seen: shapes.Confirmation) -> shapes.HostKeys:
    """Confirm the host keys that a server shows now, so that users trust them"""
    keys = host_keys.confirm(call.instance, call.actor, call.path["server"], fingerprints=seen.fingerprints)
    return shapes.host_keys(keys)


def show_ssh_config(call: Call, asked: shapes.SshConfigAsked) -> shapes.SshConfig:
    """Show the servers that a user may log in on, with the host keys to trust there"""
    return shapes.ssh_config(host_keys.reachable(call.instance, call.actor, asked.user))


ENDPOINTS = (
    endpoint("GET", PATH, list_host_keys, "servers:read", answers=shapes.HostKeys),
    endpoint(
        "POST",
        PATH + "/confirm",
        confirm_host_keys,
        "servers:write",
        takes=shapes.Confirmation,
        answers=shapes.HostKeys,
    ),
    endpoint("GET", "/ssh-config", show_ssh_config, "iam:self", asks=shapes.SshConfigAsked, answers=shapes.SshConfig),
)
