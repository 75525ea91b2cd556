"""Keyrack's own API: the keys on a server; must hold no rule of its own."""

from __future__ import annotations

from keyrack.core.hosts import refused_logins
from keyrack.core.keys import credentials, last_uses, restricting
from keyrack.web.api import Call
from keyrack.web.native import parameters
from keyrack.web.native import shapes_keys as shapes
from keyrack.web.native.calls import endpoint
from keyrack.web.native.shapes import Search

PATH = "/servers/{server}/credentials"


def list_credentials(call: Call, asked: Search) -> shapes.ListedCredentialPage:
    """List the keys on a server, oldest first, each with its last use there"""
    server_id = parameters.server_id(call)
    page = credentials.find(call.instance, call.actor, server_id, search=asked.search, **asked.window())
    used = last_uses.on_server(call.instance, call.actor, server_id, [one.fingerprint for one in page.items])
    logins = refused_logins.on_server(call.instance, call.actor, server_id)
    return shapes.ListedCredentialPage.of(
        page, lambda one: shapes.listed_credential(one, logins, used.get(one.fingerprint, ()))
    )


def add_credential(call: Call, new: shapes.NewCredential) -> shapes.ListedCredential:
    """Put a key on a system user of a server, with an end and restrictions if wanted"""
    server_id = parameters.server_id(call)
    credentials.check_server(call.instance, call.actor, server_id)
    made = credentials.add(
        call.instance,
        call.actor,
        server_id,
        label=new.label,
        username=new.username,
        public_key=new.public_key,
        temporary=new.temporary,
        expires_at=new.expires_at,
        duration=new.duration,
        break_glass=new.break_glass,
        restrictions=new.restrictions,
    )
    logins = refused_logins.on_server(call.instance, call.actor, server_id, "credentials:write")
    return shapes.listed_credential(made, logins, ())


def show_credential(call: Call) -> shapes.ListedCredential:
    """Show a key on a server with its last use there"""
    server_id = parameters.server_id(call)
    one = credentials.get(call.instance, call.actor, server_id, call.ids["credential"])
    used = last_uses.on_server(call.instance, call.actor, server_id, [one.fingerprint])
    logins = refused_logins.on_server(call.instance, call.actor, server_id)
    return shapes.listed_credential(one, logins, used.get(one.fingerprint, ()))


def delete_credential(call: Call) -> None:
    """Take a key from a server"""
    credentials.delete(call.instance, call.actor, parameters.server_id(call), call.ids["credential"])


def restrict_credential(call: Call, new: shapes.Restricted) -> shapes.Credential:
    """Give a key on a server other restrictions, under the same id; sessions that are open go on"""
    made = restricting.credential(call.instance, call.actor, call.ids["credential"], new.restrictions)
    logins = refused_logins.on_server(call.instance, call.actor, made.server_id, "credentials:write")
    return shapes.credential(made, logins)


ENDPOINTS = (
    endpoint(
        "GET",
        PATH,
        list_credentials,
        "credentials:read",
        asks=Search,
        answers=shapes.ListedCredentialPage,
        on_event_loop=True,
    ),
    endpoint(
        "POST",
        PATH,
        add_credential,
        "credentials:write",
        takes=shapes.NewCredential,
        answers=shapes.ListedCredential,
        shown_at="/servers/{server_id}/credentials/{id}",
        status=201,
        on_event_loop=True,
    ),
    endpoint(
        "GET",
        PATH + "/{credential}",
        show_credential,
        "credentials:read",
        answers=shapes.ListedCredential,
        on_event_loop=True,
    ),
    endpoint("DELETE", PATH + "/{credential}", delete_credential, "credentials:write", on_event_loop=True),
    endpoint(
        "PUT",
        "/credentials/{credential}/restrictions",
        restrict_credential,
        "credentials:write",
        takes=shapes.Restricted,
        answers=shapes.Credential,
        first=lambda call: restricting.may_restrict(call.instance, call.actor, call.ids["credential"]),
    ),
)
