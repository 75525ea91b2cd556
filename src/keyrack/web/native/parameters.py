"""Reads which server a call of Keyrack's own API names in its path; must change nothing."""

from __future__ import annotations

from keyrack.core.hosts import servers
from keyrack.model import Server
from keyrack.web.api import Call


def server(call: Call) -> Server:
    """The server that the path names, by its id or its name. Raises Refusal MISSING."""
    return servers.named(call.instance, call.actor, call.path["server"])


def server_id(call: Call) -> int:
    """The server's id: the one in the path, unchecked, or that of the name there, which takes servers:read as well."""
    return call.ids["server"] or server(call).id
