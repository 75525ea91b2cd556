"""Keyrack's own API: keys revoked everywhere, and which servers refuse them by now; must hold no rule of its own."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from keyrack.core.keys import receipts, revocation
from keyrack.web.api import Call, Endpoint
from keyrack.web.native import parameters, shapes


def revoke_key(call: Call) -> Response:
    """Revoke a key everywhere: on servers, of users and in repositories"""
    parameters.only(call, "fingerprint", "reason")
    fingerprint, reason = call.body.get("fingerprint"), call.body.get("reason")
    return JSONResponse(
        shapes.revoked(revocation.revoke_everywhere(call.instance, call.actor, fingerprint, reason=reason))
    )


def list_revoked_keys(call: Call) -> Response:
    """List keys that were revoked everywhere, newest first"""
    return shapes.listed(revocation.find(call.instance, call.actor, **parameters.window(call)), shapes.revoked_key)


def lift_revocation(call: Call) -> Response:
    """Let a key that was revoked everywhere be registered again"""
    parameters.only(call, "fingerprint")
    return JSONResponse(shapes.revoked_key(revocation.lift(call.instance, call.actor, call.body.get("fingerprint"))))


def show_receipts_of_key(call: Call) -> Response:
    """Show which servers refuse a revoked key by now"""
    # A fingerprint holds no blank, but + is one in a query where it was not written as %2B.
    fingerprint = call.query.get("fingerprint", "").replace(" ", "+")
    return JSONResponse(shapes.receipts(receipts.of_key(call.instance, call.actor, fingerprint)))


ENDPOINTS = (
    Endpoint("POST", "/keys/revoke", revoke_key, "keys:revoke"),
    Endpoint("GET", "/keys/revoked", list_revoked_keys, "credentials:read"),
    Endpoint("POST", "/keys/lift", lift_revocation, "keys:revoke"),
    Endpoint("GET", "/keys/receipts", show_receipts_of_key, "servers:read"),
)
