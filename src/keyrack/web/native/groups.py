"""Keyrack's own API: groups and who is in them; must hold no rule of its own."""

from __future__ import annotations

from keyrack.core.people import groups
from keyrack.web.api import Call
from keyrack.web.native import shapes_groups as shapes
from keyrack.web.native import shapes_people
from keyrack.web.native.calls import endpoint
from keyrack.web.native.shapes import Search


def list_groups(call: Call, asked: Search) -> shapes.GroupPage:
    """List groups by name, each with its users"""
    page = groups.find(call.instance, call.actor, search=asked.search, **asked.window())
    return shapes.GroupPage.of(page, shapes.group)


def show_group(call: Call) -> shapes.Group:
    """Show a group with its users"""
    return shapes.group(groups.get(call.instance, call.actor, call.path["group"]))


def put_group(call: Call, change: shapes.GroupChange) -> shapes.Group:
    """Create a group, or change it, with exactly these users"""
    return shapes.group(groups.put(call.instance, call.actor, call.path["group"], change.members))


def delete_group(call: Call) -> None:
    """Delete a group with its grants"""
    groups.delete(call.instance, call.actor, call.path["group"])


def show_member(call: Call) -> shapes_people.Person:
    """Show a user who is in a group"""
    return shapes_people.person(groups.member(call.instance, call.actor, call.path["group"], call.path["person"]))


def add_member(call: Call) -> shapes.Group:
    """Put a user into a group"""
    return shapes.group(groups.add_member(call.instance, call.actor, call.path["group"], call.path["person"]))


def remove_member(call: Call) -> None:
    """Take a user out of a group"""
    groups.remove_member(call.instance, call.actor, call.path["group"], call.path["person"])


GROUP = "/groups/{group}"
MEMBER = GROUP + "/members/{person}"
ENDPOINTS = (
    endpoint("GET", "/groups", list_groups, "people:read", asks=Search, answers=shapes.GroupPage),
    endpoint("GET", GROUP, show_group, "people:read", answers=shapes.Group),
    endpoint("PUT", GROUP, put_group, "people:write", takes=shapes.GroupChange, answers=shapes.Group),
    endpoint("DELETE", GROUP, delete_group, "people:write"),
    endpoint("GET", MEMBER, show_member, "people:read", answers=shapes_people.Person),
    endpoint(
        "PUT",
        MEMBER,
        add_member,
        "people:write",
        answers=shapes.Group,
        first=lambda call: groups.may_add_member(call.instance, call.actor, call.path["group"], call.path["person"]),
    ),
    endpoint("DELETE", MEMBER, remove_member, "people:write"),
)
