"""Keyrack's own API: which keys a workspace accepts, and whom another policy would hit; must hold no rule."""

from __future__ import annotations

from keyrack.core.keys import key_policy
from keyrack.core.validation import KEEP
from keyrack.web import bodies
from keyrack.web.api import Call
from keyrack.web.native import shapes_key_policy as shapes
from keyrack.web.native.calls import endpoint


def show_policy(call: Call) -> shapes.KeyPolicy:
    """Show which keys the workspace accepts"""
    return shapes.policy(key_policy.get(call.instance, call.actor))


def change_policy(call: Call, change: shapes.KeyPolicyChange) -> shapes.KeyPolicy:
    """Set which keys the workspace accepts from now on; registered keys stay"""
    given = change.model_fields_set
    made = key_policy.put(
        call.instance,
        call.actor,
        types=change.key_types if "key_types" in given else KEEP,
        rsa_minimum_bits=change.rsa_minimum_bits if "rsa_minimum_bits" in given else KEEP,
    )
    return shapes.policy(made)


def list_hits(call: Call, asked: shapes.HitsAsked) -> shapes.KeyPolicyHits:
    """List the registered keys that a policy, to be tried, would not accept"""
    types, bits = asked.key_types, asked.rsa_minimum_bits
    hits = key_policy.hits(
        call.instance,
        call.actor,
        types=KEEP if types is None else None if types == shapes.AS_STARTED else types.split(","),
        rsa_minimum_bits=KEEP if bits is None else None if bits == shapes.AS_STARTED else bodies.identifier(bits),
        cursor=asked.cursor,
        limit=asked.per_page,
    )
    return shapes.hits(hits)


ENDPOINTS = (
    endpoint("GET", "/key-policy", show_policy, "iam:self", answers=shapes.KeyPolicy),
    endpoint(
        "PATCH", "/key-policy", change_policy, "keys:rule", takes=shapes.KeyPolicyChange, answers=shapes.KeyPolicy
    ),
    endpoint("GET", "/key-policy/hits", list_hits, "people:read", asks=shapes.HitsAsked, answers=shapes.KeyPolicyHits),
)
