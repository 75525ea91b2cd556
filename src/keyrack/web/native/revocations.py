"""Keyrack's own API: keys revoked everywhere, and which servers refuse them by now; must hold no rule of its own."""

from __future__ import annotations

from keyrack.core.keys import receipts, revocation
from keyrack.web.api import Call
from keyrack.web.native import shapes_keys as shapes
from keyrack.web.native.calls import endpoint
from keyrack.web.native.shapes import Window


def revoke_key(call: Call, wanted: shapes.Revocation) -> shapes.Revoked:
    """Revoke a key everywhere: on servers, of users and in repositories"""
    return shapes.revoked(
        revocation.revoke_everywhere(call.instance, call.actor, wanted.fingerprint, reason=wanted.reason)
    )


def list_revoked_keys(call: Call, asked: Window) -> shapes.RevokedKeyPage:
    """List keys that were revoked everywhere, newest first"""
    page = revocation.find(call.instance, call.actor, **asked.window())
    return shapes.RevokedKeyPage.of(page, shapes.revoked_key)


def lift_revocation(call: Call, wanted: shapes.Lifting) -> shapes.RevokedKey:
    """Allow a key that was revoked everywhere to be registered again"""
    return shapes.revoked_key(revocation.lift(call.instance, call.actor, wanted.fingerprint))


def show_receipts_of_key(call: Call, asked: shapes.ReceiptsAsked) -> shapes.Receipts:
    """Show which servers refuse a revoked key already"""
    return shapes.receipts(receipts.of_key(call.instance, call.actor, asked.fingerprint))


ENDPOINTS = (
    endpoint("POST", "/keys/revoke", revoke_key, "keys:revoke", takes=shapes.Revocation, answers=shapes.Revoked),
    endpoint("GET", "/keys/revoked", list_revoked_keys, "credentials:read", asks=Window, answers=shapes.RevokedKeyPage),
    endpoint("POST", "/keys/lift", lift_revocation, "keys:revoke", takes=shapes.Lifting, answers=shapes.RevokedKey),
    endpoint(
        "GET",
        "/keys/receipts",
        show_receipts_of_key,
        "servers:read",
        asks=shapes.ReceiptsAsked,
        answers=shapes.Receipts,
    ),
)
