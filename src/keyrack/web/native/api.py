"""Keyrack's own API for operators: hosts, unmanaged keys, receipts, sessions; must hold no rule of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from keyrack.core.audit import events
from keyrack.core.hosts import deleted_servers, modes, resync, servers, sessions, unmanaged_keys
from keyrack.core.instance import Instance
from keyrack.core.keys import damaged_rows, receipts, revocation
from keyrack.core.people import tokens
from keyrack.errors import Kind, Refusal, invalid
from keyrack.model import Actor, Server
from keyrack.web import bodies
from keyrack.web.api import Call, Dialect, Endpoint, address_of
from keyrack.web.native import form, people

CHANNEL = "native"
STATUS = {
    Kind.UNAUTHENTICATED: 401,
    Kind.FORBIDDEN: 403,
    Kind.MISSING: 404,
    Kind.INVALID: 422,
    Kind.TAKEN: 409,
    Kind.LIMIT: 409,
    Kind.THROTTLED: 429,
    Kind.TOO_LARGE: 413,
    Kind.UNAVAILABLE: 503,
    Kind.FAULT: 500,
}


def list_servers(call: Call) -> Response:
    """List servers, each with how it is held"""
    found = servers.find(call.instance, call.actor, search=call.query.get("search", ""), **form.window(call))
    return form.listed(found, lambda server: form.server(call.instance, server))


def show_server(call: Call) -> Response:
    """Show a server and how it is held"""
    return JSONResponse(form.server(call.instance, _server(call)))


def list_deleted_servers(call: Call) -> Response:
    """List deleted servers that had a host, each with when the host said that no key of Keyrack opens it any more"""
    return form.listed(deleted_servers.find(call.instance, call.actor, **form.window(call)), form.deleted_server)


def change_server(call: Call) -> Response:
    """Have a host observe or enforce"""
    form.only(call, "mode")
    server = modes.set_mode(call.instance, call.actor, _id(call), call.body.get("mode"))
    return JSONResponse(form.server(call.instance, server))


def set_offline_policy_of_server(call: Call) -> Response:
    """Set what a host does when the service is silent"""
    return _set_stale(call, server_id=_id(call))


def set_offline_policy_of_tag(call: Call) -> Response:
    """Set what all hosts with a tag do when the service is silent"""
    return _set_stale(call, tag=call.path["tag"])


def enrol(call: Call) -> Response:
    """Make the line that enrols a host, with a one-time token"""
    line = servers.installation_line(call.instance, call.actor, _id(call))
    return JSONResponse({"line": line}, 201)


def list_unmanaged_keys(call: Call) -> Response:
    """List keys that a host found and Keyrack did not put there"""
    states = call.query.get("state", ",".join(unmanaged_keys.OPEN)).split(",")
    if not set(states) <= set(unmanaged_keys.STATES):
        raise invalid("state", f"It is one or several, with commas, of: {', '.join(unmanaged_keys.STATES)}.")
    found = unmanaged_keys.find(call.instance, call.actor, _id(call), states=states, **form.window(call))
    return form.listed(found, form.unmanaged_key)


def accept_unmanaged_key(call: Call) -> Response:
    """Make an unmanaged key a credential of its server"""
    form.only(call, "label", "username", "expires_at")
    made = unmanaged_keys.accept(
        call.instance,
        call.actor,
        _id(call),
        call.ids["found"],
        label=call.body.get("label"),
        username=call.body.get("username"),
        expires_at=form.moment(call, "expires_at"),
    )
    return JSONResponse(form.credential(made), 201)


def ignore_unmanaged_key(call: Call) -> Response:
    """Let an unmanaged key be where it is"""
    return JSONResponse(
        form.unmanaged_key(unmanaged_keys.ignore(call.instance, call.actor, _id(call), call.ids["found"]))
    )


def remove_unmanaged_key(call: Call) -> Response:
    """Have the host take an unmanaged key out of its file"""
    asked = unmanaged_keys.remove(call.instance, call.actor, _id(call), call.ids["found"])
    return JSONResponse(form.unmanaged_key(asked), 202)


def list_sessions(call: Call) -> Response:
    """List who is logged in on a server"""
    found = sessions.find(call.instance, call.actor, _id(call), **form.window(call))
    return form.listed(found, form.session)


def end_session(call: Call) -> Response:
    """End a session"""
    ended = sessions.end(call.instance, call.actor, _id(call), call.ids["session"])
    return JSONResponse(form.session(ended), 202)


def revoke_key(call: Call) -> Response:
    """Take a key away from everywhere"""
    form.only(call, "fingerprint", "reason")
    fingerprint, reason = call.body.get("fingerprint"), call.body.get("reason")
    return JSONResponse(
        form.revoked(revocation.revoke_everywhere(call.instance, call.actor, fingerprint, reason=reason))
    )


def list_revoked_keys(call: Call) -> Response:
    """List keys that were revoked everywhere, newest first"""
    return form.listed(revocation.find(call.instance, call.actor, **form.window(call)), form.revoked_key)


def lift_revocation(call: Call) -> Response:
    """Let a key that was revoked everywhere be registered again"""
    form.only(call, "fingerprint")
    return JSONResponse(form.revoked_key(revocation.lift(call.instance, call.actor, call.body.get("fingerprint"))))


def show_receipts_of_key(call: Call) -> Response:
    """Show which servers refuse a revoked key by now"""
    # A fingerprint holds no blank, but + is one in a query where it was not written as %2B.
    fingerprint = call.query.get("fingerprint", "").replace(" ", "+")
    return JSONResponse(form.receipts(receipts.of_key(call.instance, call.actor, fingerprint)))


def show_resync(call: Call) -> Response:
    """Show what a host refused or had that a database which went back does not say"""
    return JSONResponse(form.difference(resync.difference(call.instance, call.actor, _id(call))))


def decide_resync(call: Call) -> Response:
    """Decide on what is held back on a host: it stays refused, but for what is named"""
    form.only(call, "let_in", "accept_database")
    let_in = call.body.get("let_in", [])
    if not isinstance(let_in, list) or not all(isinstance(one, str) for one in let_in):
        raise invalid("let_in", "This takes a list of fingerprints.")
    accept = call.body.get("accept_database", False)
    if not isinstance(accept, bool):
        raise invalid("accept_database", "This is true or false.")
    decided = resync.decide(call.instance, call.actor, _id(call), let_in=tuple(let_in), accept_database=accept)
    return JSONResponse(form.difference(decided))


def list_damaged(call: Call) -> Response:
    """List rows that are not as Keyrack wrote them"""
    rows = damaged_rows.find(call.instance, call.actor)
    return JSONResponse({"items": [{"row": row.name, "what": row.what} for row in rows]})


def remove_damaged(call: Call) -> Response:
    """Remove a row that is not as Keyrack wrote it"""
    gone = damaged_rows.remove(call.instance, call.actor, call.path["row"])
    return JSONResponse({"row": gone.name, "what": gone.what})


def list_events(call: Call) -> Response:
    """List the audit log, newest first"""
    server = call.query.get("server", "")
    found = events.find(
        call.instance,
        call.actor,
        server_id=servers.named(call.instance, call.actor, server).id if server else None,
        search=call.query.get("search", ""),
        **form.span(call),
        **form.window(call),
    )
    return form.listed(found, form.event)


def show_receipts_of_event(call: Call) -> Response:
    """Show which servers obey what an event changed"""
    return JSONResponse(form.receipts(receipts.of_event(call.instance, call.actor, call.ids["event"])))


_SERVER = "/servers/{server}"
ENDPOINTS = (
    Endpoint("GET", "/servers", list_servers, "servers:read"),
    Endpoint("GET", "/deleted-servers", list_deleted_servers, "servers:read"),
    Endpoint("GET", _SERVER, show_server, "servers:read"),
    Endpoint("PATCH", _SERVER, change_server, "servers:write"),
    Endpoint("PUT", _SERVER + "/offline-policy", set_offline_policy_of_server, "servers:write"),
    Endpoint("PUT", "/tags/{tag}/offline-policy", set_offline_policy_of_tag, "servers:write"),
    Endpoint("POST", _SERVER + "/enrolments", enrol, "servers:write"),
    Endpoint("GET", _SERVER + "/unmanaged-keys", list_unmanaged_keys, "credentials:read"),
    Endpoint("POST", _SERVER + "/unmanaged-keys/{found}/accept", accept_unmanaged_key, "credentials:write"),
    Endpoint("POST", _SERVER + "/unmanaged-keys/{found}/ignore", ignore_unmanaged_key, "credentials:write"),
    Endpoint("POST", _SERVER + "/unmanaged-keys/{found}/remove", remove_unmanaged_key, "credentials:write"),
    Endpoint("GET", _SERVER + "/sessions", list_sessions, "sessions:read"),
    Endpoint("DELETE", _SERVER + "/sessions/{session}", end_session, "sessions:write"),
    Endpoint("GET", _SERVER + "/resync", show_resync, "servers:read"),
    Endpoint("POST", _SERVER + "/resync", decide_resync, "keys:revoke"),
    Endpoint("POST", "/keys/revoke", revoke_key, "keys:revoke"),
    Endpoint("GET", "/keys/revoked", list_revoked_keys, "credentials:read"),
    Endpoint("POST", "/keys/lift", lift_revocation, "keys:revoke"),
    Endpoint("GET", "/keys/receipts", show_receipts_of_key, "servers:read"),
    Endpoint("GET", "/damaged-rows", list_damaged, "credentials:read"),
    Endpoint("DELETE", "/damaged-rows/{row}", remove_damaged, "credentials:write"),
    Endpoint("GET", "/events", list_events, "events:read"),
    Endpoint("GET", "/events/{event}/receipts", show_receipts_of_event, "servers:read"),
    *people.ENDPOINTS,
)
PAGES = ("page", "per_page")
# What each call takes in its query; any other name is refused, so that a misspelt one is not silently left out.
QUERIES = {
    "/servers": (*PAGES, "search"),
    "/deleted-servers": PAGES,
    "/servers/{server}/unmanaged-keys": (*PAGES, "state"),
    "/servers/{server}/sessions": PAGES,
    "/servers/{server}/credentials": (*PAGES, "search"),
    "/keys/revoked": PAGES,
    "/keys/receipts": ("fingerprint",),
    "/events": (*PAGES, "search", "server", "from", "to", "before"),
    "/grants": PAGES,
    "/user-keys": (*PAGES, "user"),
    "/tokens": PAGES,
}


def authenticate(instance: Instance, request: Request) -> Actor:
    """The actor of `Authorization: Bearer TOKEN`. Raises Refusal UNAUTHENTICATED."""
    headers = request.headers.getlist("authorization")
    scheme, _, secret = headers[0].partition(" ") if len(headers) == 1 else ("", "", "")
    if scheme.lower() != "bearer" or not secret.strip():
        raise Refusal(Kind.UNAUTHENTICATED, "token-lacking", "Send a token: Authorization: Bearer TOKEN.")
    return tokens.authenticate(instance, secret.strip(), address=address_of(request), channel=CHANNEL)


def read_body(request: Request, content: bytes) -> tuple[Mapping[str, Any], bool]:
    """The fields of a JSON body, whatever curl called it."""
    return bodies.json_fields(request, content), False


def refuse(request: Request, refusal: Refusal) -> Response:
    """A refusal as {"error": {"code", "message", "field"?}}."""
    status = STATUS[refusal.kind]
    headers = {"Retry-After": str(refusal.retry_after)} if refusal.retry_after else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return _error(status, refusal.code, refusal.message, headers, refusal.field)


def unknown_path(request: Request) -> Response:
    """404 for a path without a call."""
    return _error(404, "path-unknown", "There is no such path; /docs lists what there is.", {})


def not_supported(request: Request, methods: tuple[str, ...]) -> Response:
    """405 with the methods that the path has."""
    allowed = ", ".join(sorted(methods))
    return _error(405, "method-not-supported", f"This path takes: {allowed}.", {"Allow": allowed})


DIALECT = Dialect(
    name=CHANNEL,
    endpoints=tuple(
        replace(one, handler=form.asked(one.handler, QUERIES.get(one.path, ()) if one.method == "GET" else ()))
        for one in ENDPOINTS
    ),
    authenticate=authenticate,
    refuse=refuse,
    unknown_path=unknown_path,
    not_supported=not_supported,
    read_body=read_body,
    shows_quota=True,
)


def _server(call: Call) -> Server:
    return servers.named(call.instance, call.actor, call.path["server"])


def _id(call: Call) -> int:
    """The id in the path as it is; only a name is looked up, which takes servers:read as well."""
    return call.ids["server"] or _server(call).id


def _set_stale(call: Call, *, server_id: int | None = None, tag: str | None = None) -> Response:
    form.only(call, "after_seconds", "then")
    changed = modes.set_staleness(
        call.instance,
        call.actor,
        after_seconds=call.body.get("after_seconds"),
        then=call.body.get("then"),
        server_id=server_id,
        tag=tag,
    )
    return JSONResponse({"items": [form.server(call.instance, server) for server in changed]})


def _error(status: int, code: str, message: str, headers: dict[str, str], field: str | None = None) -> Response:
    error = {"code": code, "message": message} | ({"field": field} if field else {})
    return JSONResponse({"error": error}, status, headers=headers)
