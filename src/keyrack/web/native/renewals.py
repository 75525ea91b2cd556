"""Keyrack's own API: another end for keys and grants, under the id they have; must hold no rule of its own."""

from __future__ import annotations

from keyrack.core.hosts import refused_logins
from keyrack.core.keys import changing_grants, grants, renewals, user_keys
from keyrack.web.api import Call
from keyrack.web.native import shapes_grants, shapes_keys, shapes_people
from keyrack.web.native.calls import endpoint
from keyrack.web.native.shapes_keys import Renewal


def renew_credential(call: Call, new: Renewal) -> shapes_keys.Credential:
    """Give a key on a server another end, under the same id"""
    made = renewals.credential(
        call.instance, call.actor, call.ids["credential"], expires_at=new.expires_at, duration=new.duration
    )
    logins = refused_logins.on_server(call.instance, call.actor, made.server_id, "credentials:write")
    return shapes_keys.credential(made, logins)


def renew_key(call: Call, new: Renewal) -> shapes_people.OwnKey:
    """Give a user's key another end, under the same id"""
    made = renewals.key(call.instance, call.actor, call.ids["key"], expires_at=new.expires_at, duration=new.duration)
    return shapes_people.own_key(made)


def renew_grant(call: Call, new: Renewal) -> shapes_grants.Grant:
    """Give a grant another end, under the same id"""
    made = changing_grants.renew(
        call.instance, call.actor, call.ids["grant"], expires_at=new.expires_at, duration=new.duration
    )
    return shapes_grants.grant(made, grants.names(call.instance, call.actor, (made,), written=True))


ENDPOINTS = (
    endpoint(
        "POST",
        "/credentials/{credential}/renew",
        renew_credential,
        "credentials:write",
        takes=Renewal,
        answers=shapes_keys.Credential,
        first=lambda call: renewals.may_renew_credential(call.instance, call.actor, call.ids["credential"]),
    ),
    endpoint(
        "POST",
        "/keys/{key}/renew",
        renew_key,
        user_keys.ADD,
        takes=Renewal,
        answers=shapes_people.OwnKey,
        first=lambda call: renewals.may_renew_key(call.instance, call.actor, call.ids["key"]),
    ),
    endpoint("POST", "/grants/{grant}/renew", renew_grant, "grants:write", takes=Renewal, answers=shapes_grants.Grant),
)
