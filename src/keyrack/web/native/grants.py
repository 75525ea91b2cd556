"""Keyrack's own API: grants, which let users and groups log in; must hold no rule of its own."""

from __future__ import annotations

from keyrack.core.keys import changing_grants, grants, standing_grants
from keyrack.core.validation import KEEP
from keyrack.web.api import Call
from keyrack.web.native import shapes_grants as shapes
from keyrack.web.native.calls import endpoint
from keyrack.web.native.shapes import Window


def list_grants(call: Call, asked: Window) -> shapes.GrantPage:
    """List who may log in where, oldest first"""
    page = grants.page(call.instance, call.actor, **asked.window())
    names = grants.names(call.instance, call.actor, page.items)
    return shapes.GrantPage.of(page, lambda grant: shapes.grant(grant, names))


def give_grant(call: Call, new: shapes.NewGrant) -> shapes.GivenGrant:
    """Let a user or a group log in as a system user on a server, on servers with a tag, or on all"""
    given = grants.give_named(
        call.instance,
        call.actor,
        user=new.user,
        group=new.group,
        server=new.server,
        tag=new.tag,
        all_servers=new.all,
        system_user=new.system_user,
        starts_at=new.starts_at,
        expires_at=new.expires_at,
        duration=new.duration,
        break_glass=new.break_glass,
        restrictions=new.restrictions,
        reason=new.reason,
    )
    made = grants.noted(call.instance, given)
    return shapes.given_grant(made, grants.names(call.instance, call.actor, (given,), written=True))


def put_grant(call: Call, wanted: shapes.WantedGrant) -> shapes.Grant:
    """Make sure that a grant with these terms exists; gives one if there is none"""
    stands = standing_grants.put(
        call.instance,
        call.actor,
        user=wanted.user,
        group=wanted.group,
        server=wanted.server,
        tag=wanted.tag,
        all_servers=wanted.all,
        system_user=wanted.system_user,
        starts_at=wanted.starts_at,
        expires_at=wanted.expires_at,
        break_glass=wanted.break_glass,
        restrictions=wanted.restrictions,
        reason=wanted.reason,
    )
    return shapes.grant(stands, grants.names(call.instance, call.actor, (stands,), written=True))


def show_grant(call: Call) -> shapes.Grant:
    """Show a grant"""
    grant = grants.get(call.instance, call.actor, call.ids["grant"])
    return shapes.grant(grant, grants.names(call.instance, call.actor, (grant,)))


def change_grant(call: Call, change: shapes.GrantChange) -> shapes.Grant:
    """Change restrictions, end or reason of a grant, under the same id; sessions that are open go on"""
    given = change.model_fields_set
    made = changing_grants.change(
        call.instance,
        call.actor,
        call.ids["grant"],
        restrictions=change.restrictions if "restrictions" in given else KEEP,
        expires_at=change.expires_at if "expires_at" in given else KEEP,
        duration=change.duration,
        reason=change.reason if "reason" in given else KEEP,
    )
    return shapes.grant(made, grants.names(call.instance, call.actor, (made,), written=True))


def take_back_grant(call: Call) -> None:
    """End a grant"""
    grants.take_back(call.instance, call.actor, call.ids["grant"])


ENDPOINTS = (
    endpoint("GET", "/grants", list_grants, "grants:read", asks=Window, answers=shapes.GrantPage),
    endpoint(
        "POST",
        "/grants",
        give_grant,
        "grants:write",
        takes=shapes.NewGrant,
        answers=shapes.GivenGrant,
        shown_at="/grants/{id}",
        status=201,
    ),
    endpoint(
        "PUT",
        "/grants",
        put_grant,
        "grants:write",
        takes=shapes.WantedGrant,
        answers=shapes.Grant,
        shown_at="/grants/{id}",
    ),
    endpoint("GET", "/grants/{grant}", show_grant, "grants:read", answers=shapes.Grant),
    endpoint("PATCH", "/grants/{grant}", change_grant, "grants:write", takes=shapes.GrantChange, answers=shapes.Grant),
    endpoint("DELETE", "/grants/{grant}", take_back_grant, "grants:write"),
)
