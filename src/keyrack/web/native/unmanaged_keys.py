"""Keyrack's own API: keys on a host that Keyrack did not put there; must hold no rule of its own."""

from __future__ import annotations

from keyrack.core.hosts import refused_logins, undecided_keys, unmanaged_keys
from keyrack.web.api import Call
from keyrack.web.native import parameters
from keyrack.web.native import shapes_keys as shapes
from keyrack.web.native.calls import endpoint

PATH = "/servers/{server}/unmanaged-keys"


def count_unmanaged_keys(call: Call) -> shapes.UnmanagedCounts:
    """Count the unmanaged keys that wait for a decision, server by server"""
    waiting = undecided_keys.counts(call.instance, call.actor)
    return shapes.UnmanagedCounts(
        items=[shapes.UnmanagedCount(server_id=number, keys=keys) for number, keys in sorted(waiting.items())]
    )


def list_unmanaged_keys(call: Call, asked: shapes.UnmanagedKeysAsked) -> shapes.UnmanagedKeyPage:
    """List a host's unmanaged keys, which Keyrack did not put there"""
    page = unmanaged_keys.find(
        call.instance, call.actor, parameters.server_id(call), states=asked.state.split(","), **asked.window()
    )
    return shapes.UnmanagedKeyPage.of(page, shapes.unmanaged_key)


def accept_unmanaged_key(call: Call, acceptance: shapes.Acceptance) -> shapes.Credential:
    """Make an unmanaged key a credential of its server"""
    server_id = parameters.server_id(call)
    made = unmanaged_keys.accept(
        call.instance,
        call.actor,
        server_id,
        call.ids["key"],
        label=acceptance.label,
        username=acceptance.username,
        expires_at=acceptance.expires_at,
        duration=acceptance.duration,
    )
    logins = refused_logins.on_server(call.instance, call.actor, server_id, "credentials:write")
    return shapes.credential(made, logins)


def ignore_unmanaged_key(call: Call) -> shapes.UnmanagedKey:
    """Ignore an unmanaged key: it stays where it is"""
    return shapes.unmanaged_key(
        unmanaged_keys.ignore(call.instance, call.actor, parameters.server_id(call), call.ids["key"])
    )


def remove_unmanaged_key(call: Call) -> shapes.UnmanagedKey:
    """Have the host remove an unmanaged key from its file"""
    return shapes.unmanaged_key(
        unmanaged_keys.remove(call.instance, call.actor, parameters.server_id(call), call.ids["key"])
    )


def _may_decide(call: Call) -> None:
    unmanaged_keys.may_decide(call.instance, call.actor, parameters.server_id(call), call.ids["key"])


ENDPOINTS = (
    endpoint("GET", "/unmanaged-keys", count_unmanaged_keys, "credentials:read", answers=shapes.UnmanagedCounts),
    endpoint(
        "GET",
        PATH,
        list_unmanaged_keys,
        "credentials:read",
        asks=shapes.UnmanagedKeysAsked,
        answers=shapes.UnmanagedKeyPage,
    ),
    endpoint(
        "POST",
        PATH + "/{key}/accept",
        accept_unmanaged_key,
        "credentials:write",
        takes=shapes.Acceptance,
        answers=shapes.Credential,
        status=201,
        first=_may_decide,
    ),
    endpoint(
        "POST",
        PATH + "/{key}/ignore",
        ignore_unmanaged_key,
        "credentials:write",
        answers=shapes.UnmanagedKey,
        first=_may_decide,
    ),
    endpoint(
        "POST",
        PATH + "/{key}/remove",
        remove_unmanaged_key,
        "credentials:write",
        answers=shapes.UnmanagedKey,
        status=202,
        first=_may_decide,
    ),
)
