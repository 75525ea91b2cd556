"""Keyrack's own API: keys that open no new session until they are confirmed; must hold no rule of its own."""

from __future__ import annotations

from keyrack.core.keys import freezes, user_keys
from keyrack.web.api import Call
from keyrack.web.native import shapes_freezes as shapes
from keyrack.web.native.calls import endpoint


def freeze_keys(call: Call, new: shapes.NewFreeze) -> shapes.FreezeProgress:
    """Stop keys from opening new sessions until their owners confirm them, or preview which keys these are"""
    act = freezes.preview if new.preview else freezes.freeze
    return shapes.progress(act(call.instance, call.actor, user=new.user, server=new.server, reason=new.reason))


def list_freezes(call: Call, asked: shapes.FreezesAsked) -> shapes.Freezes:
    """List freezes, newest first"""
    piece = freezes.find(call.instance, call.actor, before=asked.before, limit=asked.per_page)
    return shapes.Freezes(items=[shapes.freeze(one) for one in piece])


def show_freeze(call: Call) -> shapes.FreezeProgress:
    """Show a freeze, and which hosts have applied it"""
    return shapes.progress(freezes.get(call.instance, call.actor, call.ids["freeze"]))


def end_freeze(call: Call) -> None:
    """End a freeze: keys that nobody confirmed open sessions again"""
    freezes.end(call.instance, call.actor, call.ids["freeze"])


def confirm_key(call: Call) -> None:
    """Confirm a frozen key of your own: it opens sessions again"""
    freezes.confirm_key(call.instance, call.actor, call.ids["key"])


def confirm_credential(call: Call) -> None:
    """Confirm a frozen key on a server that no user registered: it opens sessions again"""
    freezes.confirm_credential(call.instance, call.actor, call.ids["credential"])


ENDPOINTS = (
    endpoint("GET", "/freezes", list_freezes, freezes.READ, asks=shapes.FreezesAsked, answers=shapes.Freezes),
    endpoint(
        "POST",
        "/freezes",
        freeze_keys,
        freezes.FREEZE,
        takes=shapes.NewFreeze,
        answers=shapes.FreezeProgress,
        shown_at="/freezes/{id}",
        status=202,
    ),
    endpoint("GET", "/freezes/{freeze}", show_freeze, freezes.READ, answers=shapes.FreezeProgress),
    endpoint("DELETE", "/freezes/{freeze}", end_freeze, freezes.FREEZE),
    endpoint(
        "POST",
        "/keys/{key}/confirm",
        confirm_key,
        user_keys.ADD,
        first=lambda call: freezes.may_confirm_key(call.instance, call.actor, call.ids["key"]),
    ),
    endpoint(
        "POST",
        "/credentials/{credential}/confirm",
        confirm_credential,
        "credentials:write",
        first=lambda call: freezes.may_confirm_credential(call.instance, call.actor, call.ids["credential"]),
    ),
)
