"""Keyrack's own API: people who are removed everywhere, who has obeyed, and undoing it; must hold no rule."""

from __future__ import annotations

from keyrack.core.people import offboarding, offboarding_undo
from keyrack.web.api import Call
from keyrack.web.native import shapes_offboardings as shapes
from keyrack.web.native.calls import endpoint
from keyrack.web.native.shapes import Window


def offboard(call: Call, wanted: shapes.Offboard, asked: shapes.PreviewAsked) -> shapes.Offboarding:
    """Remove a person everywhere, or preview what would go"""
    name = call.path["person"]
    if wanted.preview or asked.preview:
        return shapes.preview(offboarding.preview(call.instance, call.actor, name, reason=wanted.reason))
    made = offboarding.offboard(call.instance, call.actor, name, reason=wanted.reason)
    return shapes.offboarding(offboarding.receipt(call.instance, call.actor, made))


def list_offboardings(call: Call, asked: Window) -> shapes.OffboardingPage:
    """List people who were removed everywhere, newest first, each with the hosts that have applied it"""
    page = offboarding.find(call.instance, call.actor, **asked.window())
    return shapes.OffboardingPage.of(page, shapes.offboarding)


def show_offboarding(call: Call) -> shapes.Offboarding:
    """Show which hosts and Git endpoints have applied the removal of a person"""
    return shapes.offboarding(offboarding.get(call.instance, call.actor, call.ids["offboarding"]))


def undo_offboarding(call: Call) -> shapes.Undone:
    """Bring back the access of a person who was removed, not sessions or tokens"""
    return shapes.undone(offboarding_undo.undo(call.instance, call.actor, call.ids["offboarding"]))


ENDPOINTS = (
    endpoint(
        "POST",
        "/people/{person}/offboard",
        offboard,
        "people:offboard",
        takes=shapes.Offboard,
        asks=shapes.PreviewAsked,
        answers=shapes.Offboarding,
        shown_at="/offboardings/{id}",
        status=202,
    ),
    endpoint("GET", "/offboardings", list_offboardings, "people:read", asks=Window, answers=shapes.OffboardingPage),
    endpoint("GET", "/offboardings/{offboarding}", show_offboarding, "people:read", answers=shapes.Offboarding),
    endpoint("POST", "/offboardings/{offboarding}/undo", undo_offboarding, "people:offboard", answers=shapes.Undone),
)
