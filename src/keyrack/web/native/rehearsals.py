"""Keyrack's own API: what a call would do to who can log in where; must hold no rule of its own."""

from __future__ import annotations

import json
from functools import partial

from keyrack.core.instance import Instance
from keyrack.core.keys import rehearsal
from keyrack.errors import invalid
from keyrack.web.api import Call
from keyrack.web.native import catalogue
from keyrack.web.native import shapes_access as shapes
from keyrack.web.native.calls import endpoint

BASE = "/api/keyrack/v1"

# Calls that change who can log in, and do nothing outside their transaction.
REHEARSED = frozenset(
    {
        ("POST", "/grants"),
        ("PUT", "/grants"),
        ("PATCH", "/grants/{grant}"),
        ("DELETE", "/grants/{grant}"),
        ("PUT", "/groups/{group}"),
        ("DELETE", "/groups/{group}"),
        ("PUT", "/groups/{group}/members/{person}"),
        ("DELETE", "/groups/{group}/members/{person}"),
        ("PUT", "/people/{person}"),
        ("PATCH", "/people/{person}"),
        ("DELETE", "/people/{person}"),
        ("POST", "/people/me/keys"),
        ("DELETE", "/people/me/keys/{key}"),
        ("PUT", "/people/me/keys"),
        ("PUT", "/people/{person}/keys"),
        ("DELETE", "/people/{person}/keys/{key}"),
        ("POST", "/credentials"),
        ("POST", "/credentials/revoke"),
        ("POST", "/credentials/replace"),
        ("POST", "/servers/{server}/credentials"),
        ("DELETE", "/servers/{server}/credentials/{credential}"),
        ("PUT", "/credentials/{credential}/restrictions"),
        ("POST", "/credentials/{credential}/renew"),
        ("POST", "/credentials/{credential}/confirm"),
        ("POST", "/keys/{key}/renew"),
        ("POST", "/keys/{key}/confirm"),
        ("POST", "/grants/{grant}/renew"),
        ("DELETE", "/freezes/{freeze}"),
        ("POST", "/servers/{server}/unmanaged-keys/{key}/accept"),
        ("PATCH", "/servers/{server}"),
        ("DELETE", "/servers/{server}"),
        ("DELETE", "/servers/{server}/system-users/{username}"),
        ("POST", "/keys/revoke"),
        ("POST", "/requests/{request}/approve"),
    }
)


def rehearse(call: Call, wanted: shapes.NewRehearsal) -> shapes.Rehearsal:
    """Show which logins another call would give, take away or change, without making it"""
    path = wanted.path.removeprefix(BASE)
    page = catalogue.find(wanted.method, path)
    if page is None or (wanted.method, page[0].path) not in REHEARSED:
        known = ", ".join(f"{method} {path}" for method, path in sorted(REHEARSED, key=lambda one: one[::-1]))
        raise invalid("path", f"These calls can be rehearsed: {known}.", "not-rehearsed")
    done = rehearsal.rehearse(call.instance, call.actor, partial(_made, call, wanted, path))
    return shapes.rehearsal(done)


def _made(call: Call, wanted: shapes.NewRehearsal, path: str, instance: Instance) -> object:
    answer = catalogue.answer(instance, call.actor, wanted.method, path, wanted.body or {}, {})
    return json.loads(bytes(answer.body)) if answer.body else None


ENDPOINTS = (
    endpoint("POST", "/rehearsals", rehearse, "access:read", takes=shapes.NewRehearsal, answers=shapes.Rehearsal),
)
