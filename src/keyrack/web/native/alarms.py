"""Keyrack's own API: alarms, whether they stand, and settling one; must hold no rule of its own."""

from __future__ import annotations

from keyrack.core.audit import standing
from keyrack.web.api import Call
from keyrack.web.native import shapes_alarms as shapes
from keyrack.web.native.calls import endpoint


def list_alarms(call: Call) -> shapes.Alarms:
    """List the alarms that stand, and those that were settled within a day"""
    return shapes.alarms(standing.find(call.instance, call.actor))


def settle_alarm(call: Call) -> shapes.Alarm:
    """Settle an alarm that does not end by itself"""
    return shapes.alarm(standing.settle(call.instance, call.actor, call.ids["event"]))


ENDPOINTS = (
    endpoint("GET", "/alarms", list_alarms, "events:read", answers=shapes.Alarms),
    endpoint(
        "POST",
        "/alarms/{event}/settle",
        settle_alarm,
        "servers:write",
        answers=shapes.Alarm,
        first=lambda call: standing.may_settle(call.instance, call.actor, call.ids["event"]),
    ),
)
