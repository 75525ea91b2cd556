"""Finds and answers one call of Keyrack's own API in this process, loading only its resource; must decide nothing."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response

from keyrack.core.instance import Instance
from keyrack.errors import missing
from keyrack.model import Actor
from keyrack.web import bodies
from keyrack.web.api import Call, Endpoint

# The modules with the calls, by the first part of their paths; a test checks it.
MODULES: dict[str, tuple[str, ...]] = {
    "access": ("access",),
    "alarms": ("alarms",),
    "audit": ("events",),
    "credentials": ("credentials", "everywhere", "renewals", "freezes"),
    "damaged-rows": ("damaged_rows",),
    "deleted-servers": ("servers",),
    "events": ("events",),
    "freezes": ("freezes",),
    "grants": ("grants", "renewals"),
    "groups": ("groups",),
    "instance": ("tokens",),
    "key-policy": ("key_policy",),
    "keys": ("revocations", "claims", "renewals", "freezes", "findings", "key_places"),
    "offboardings": ("offboardings",),
    "people": ("people", "key_sources", "offboardings", "user_keys"),
    "rehearsals": ("rehearsals",),
    "repositories": ("repositories",),
    "request-rules": ("requests",),
    "requests": ("requests",),
    "resync": ("resync",),
    "servers": ("servers", "credentials", "sessions", "unmanaged_keys", "resync", "host_keys", "system_users"),
    "ssh-config": ("host_keys",),
    "tags": ("servers",),
    "tokens": ("tokens",),
    "unmanaged-keys": ("unmanaged_keys",),
    "user-keys": ("user_keys",),
    "webhooks": ("webhooks",),
}


def find(method: str, path: str) -> tuple[Endpoint, dict[str, str]] | None:
    """The call of a method and a path, and the values of the names in its path; None where there is none."""
    pieces = path.split("/")[1:]
    for endpoint in _near(pieces[0] if pieces else ""):
        names = endpoint.path.split("/")[1:]
        if endpoint.method != method or len(names) != len(pieces):
            continue
        if all(name.startswith("{") or name == piece for name, piece in zip(names, pieces, strict=True)):
            texts = {
                name[1:-1]: unquote(piece).replace("\x00", "\ufffd")
                for name, piece in zip(names, pieces, strict=True)
                if name.startswith("{")
            }
            return endpoint, texts
    return None


def answer(
    instance: Instance, actor: Actor, method: str, path: str, body: Mapping[str, Any], query: Mapping[str, str]
) -> Response:
    """Make a call as an actor who is authenticated already; returns its answer. Raises Refusal, MISSING for an unknown
    path.
    """
    known = find(method, path)
    if known is None:
        raise missing("call")
    endpoint, texts = known
    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": []}
    return endpoint.handler(
        Call(
            instance=instance,
            actor=actor,
            request=Request(scope),
            ids={name: bodies.identifier(value) for name, value in texts.items()},
            path=texts,
            query=dict(query),
            body=body,
        )
    )


def _near(first: str) -> Iterator[Endpoint]:
    for name in MODULES.get(first, ()):
        yield from importlib.import_module(f"keyrack.web.native.{name}").ENDPOINTS
