"""Keyrack's own API: the accounts that users' keys come from; must hold no rule of its own."""

from __future__ import annotations

from keyrack.core.keys import key_sources, key_sync, user_keys
from keyrack.web.api import Call
from keyrack.web.native import shapes_key_sources as shapes
from keyrack.web.native.calls import endpoint
from keyrack.web.outgoing import Outgoing


def list_key_sources(call: Call) -> shapes.KeySources:
    """List the accounts that a user's keys come from"""
    return shapes.listed(key_sources.find(call.instance, call.actor, call.path["person"]))


def show_key_source(call: Call) -> shapes.KeySource:
    """Show an account that a user's keys come from"""
    return shapes.key_source(key_sources.get(call.instance, call.actor, call.path["person"], call.path["kind"]))


def put_key_source(call: Call, new: shapes.NewKeySource) -> shapes.KeySource:
    """Keep a user's keys in sync with those of an account at GitHub or GitLab"""
    path = call.path
    return shapes.key_source(
        key_sources.put(call.instance, call.actor, path["person"], path["kind"], account=new.account, url=new.url)
    )


def sync_key_sources(call: Call) -> shapes.KeySources:
    """Sync a user's keys with their accounts now"""
    ask = Outgoing(call.instance.settings)
    return shapes.listed(key_sync.sync_user(call.instance, call.actor, call.path["person"], ask))


def delete_key_source(call: Call) -> None:
    """Stop syncing a user's keys with an account, and delete the keys that came from it"""
    key_sources.delete(call.instance, call.actor, call.path["person"], call.path["kind"])


def _may_change(call: Call) -> None:
    own = user_keys.DELETE if call.request.method == "DELETE" else user_keys.ADD
    key_sources.may_change(call.instance, call.actor, call.path["person"], own=own)


ENDPOINTS = (
    endpoint("GET", "/people/{person}/key-sources", list_key_sources, "people:read", answers=shapes.KeySources),
    endpoint(
        "POST",
        "/people/{person}/key-sources/sync",
        sync_key_sources,
        user_keys.ADD,
        answers=shapes.KeySources,
        first=_may_change,
    ),
    endpoint("GET", "/people/{person}/key-sources/{kind}", show_key_source, "people:read", answers=shapes.KeySource),
    endpoint(
        "PUT",
        "/people/{person}/key-sources/{kind}",
        put_key_source,
        user_keys.ADD,
        takes=shapes.NewKeySource,
        answers=shapes.KeySource,
        first=_may_change,
    ),
    endpoint("DELETE", "/people/{person}/key-sources/{kind}", delete_key_source, user_keys.ADD, first=_may_change),
)
