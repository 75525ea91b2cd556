"""Keyrack's own API: one key on many servers by one call; must hold no rule of its own."""

from __future__ import annotations

from keyrack.core.keys import everywhere
from keyrack.web.api import Call
from keyrack.web.native import shapes_everywhere as shapes
from keyrack.web.native.calls import endpoint


def add_key(call: Call, new: shapes.KeyForMany) -> shapes.PlacedKeys:
    """Put a key on a system user of many servers, all at once or not at all"""
    made = everywhere.add(
        call.instance,
        call.actor,
        new.servers,
        label=new.label,
        username=new.username,
        public_key=new.public_key,
        temporary=new.temporary,
        expires_at=new.expires_at,
        duration=new.duration,
        break_glass=new.break_glass,
        restrictions=new.restrictions,
    )
    return shapes.placed(made)


def revoke_key_on_many(call: Call, gone: shapes.RevokedOnMany) -> shapes.PlacedKeys:
    """Take a key from many servers, all at once or not at all"""
    placed = everywhere.revoke(call.instance, call.actor, gone.servers, fingerprint=gone.fingerprint, label=gone.label)
    return shapes.placed(placed)


def replace_key(call: Call, new: shapes.ReplacedOnMany) -> shapes.PlacedKeys:
    """Put another key in the place of one on many servers; labels, ends and restrictions stay"""
    placed = everywhere.replace(
        call.instance, call.actor, new.servers, fingerprint=new.fingerprint, public_key=new.public_key
    )
    return shapes.placed(placed)


ENDPOINTS = (
    endpoint("POST", "/credentials", add_key, "credentials:write", takes=shapes.KeyForMany, answers=shapes.PlacedKeys),
    endpoint(
        "POST",
        "/credentials/revoke",
        revoke_key_on_many,
        "credentials:write",
        takes=shapes.RevokedOnMany,
        answers=shapes.PlacedKeys,
    ),
    endpoint(
        "POST",
        "/credentials/replace",
        replace_key,
        "credentials:write",
        takes=shapes.ReplacedOnMany,
        answers=shapes.PlacedKeys,
    ),
)
