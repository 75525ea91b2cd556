"""Keyrack's own API: keys that should not be there any more; must hold no rule of its own."""

from __future__ import annotations

from keyrack.core.keys import findings
from keyrack.web.api import Call
from keyrack.web.native import shapes_findings as shapes
from keyrack.web.native.calls import endpoint


def find_keys(call: Call, asked: shapes.FindingsAsked) -> shapes.Findings:
    """Find keys that are weak, old, unused or nobody's"""
    record = findings.find(
        call.instance,
        call.actor,
        kinds=asked.kind.split(","),
        old_days=asked.old_days,
        unused_days=asked.unused_days,
        cursor=asked.cursor,
        limit=asked.per_page,
    )
    return shapes.findings(record)


ENDPOINTS = (
    endpoint(
        "GET", "/keys/findings", find_keys, "credentials:read", asks=shapes.FindingsAsked, answers=shapes.Findings
    ),
)
