"""Keyrack's own API: grants, credentials, keys of users, tokens, repositories; must hold no rule of its own."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from keyrack.core.git import repositories
from keyrack.core.hosts import servers
from keyrack.core.keys import credentials, grants, last_uses
from keyrack.core.people import tokens
from keyrack.errors import invalid
from keyrack.model import Credential, Grant, UserKey
from keyrack.store.people import Bearer
from keyrack.store.repositories import Repository
from keyrack.store.uses import Use
from keyrack.web.api import Call, Endpoint
from keyrack.web.native import form


def list_grants(call: Call) -> Response:
    """List who may log in where, oldest first"""
    found = grants.page(call.instance, call.actor, **form.window(call))
    return form.listed(found, lambda grant: _grant(grant, grants.names(call.instance, call.actor, found.items)))


def give_grant(call: Call) -> Response:
    """Let a user or a group log in as a system user on a server, or on servers with a tag"""
    form.only(call, "user", "group", "server", "tag", "system_user", "expires_at", "restrictions")
    given = grants.give_named(
        call.instance,
        call.actor,
        **{name: call.body.get(name) for name in ("user", "group", "server", "tag")},
        system_user=call.body.get("system_user"),
        expires_at=form.moment(call, "expires_at"),
        restrictions=call.body.get("restrictions"),
    )
    return JSONResponse(_grant(given, grants.names(call.instance, call.actor, (given,), written=True)), 201)


def take_back_grant(call: Call) -> Response:
    """End a grant"""
    grants.take_back(call.instance, call.actor, call.ids["grant"])
    return Response(status_code=204)


def list_credentials(call: Call) -> Response:
    """List the keys on a server, oldest first, each with its last use there"""
    server_id = _server_id(call)
    search = call.query.get("search", "")
    found = credentials.find(call.instance, call.actor, server_id, search=search, **form.window(call))
    used = last_uses.on_server(call.instance, call.actor, server_id, [one.fingerprint for one in found.items])
    return form.listed(found, lambda one: _credential(one, used.get(one.fingerprint, ())))


def add_credential(call: Call) -> Response:
    """Put a key on a system user of a server, with an end and restrictions if wanted"""
    server_id = _server_id(call)
    credentials.check_server(call.instance, call.actor, server_id)
    form.only(call, "label", "username", "public_key", "temporary", "expires_at", "restrictions")
    temporary = call.body.get("temporary", False)
    if not isinstance(temporary, bool):
        raise invalid("temporary", "temporary takes true or false.")
    made = credentials.add(
        call.instance,
        call.actor,
        server_id,
        label=call.body.get("label"),
        username=call.body.get("username"),
        public_key=call.body.get("public_key"),
        temporary=temporary,
        expires_at=form.moment(call, "expires_at"),
        restrictions=call.body.get("restrictions"),
    )
    return JSONResponse(_credential(made, ()), 201)


def delete_credential(call: Call) -> Response:
    """Take a key from a server"""
    credentials.delete(call.instance, call.actor, _server_id(call), call.ids["credential"])
    return Response(status_code=204)


def list_user_keys(call: Call) -> Response:
    """List the keys of the workspace's users, newest first, each with its last uses"""
    found, names, used = last_uses.user_keys(
        call.instance, call.actor, user=call.query.get("user"), **form.window(call)
    )
    return form.listed(found, lambda key: _user_key(key, names, used.get(key.fingerprint or "", ())))


def list_tokens(call: Call) -> Response:
    """List API tokens, oldest first; never the tokens themselves"""
    return form.listed(tokens.find(call.instance, call.actor, **form.window(call)), _token)


def revoke_token(call: Call) -> Response:
    """Revoke an API token"""
    tokens.revoke_id(call.instance, call.actor, call.ids["token"])
    return Response(status_code=204)


def show_repository(call: Call) -> Response:
    """Show a repository and how it is protected"""
    return JSONResponse(_repository(repositories.get(call.instance, call.actor, call.ids["repository"])))


def change_repository(call: Call) -> Response:
    """Protect a repository's default branch, or change who may read it"""
    form.only(call, "protect_default", "visibility")
    changed = repositories.change(
        call.instance,
        call.actor,
        call.ids["repository"],
        visibility=call.body.get("visibility"),
        protect_default=call.body.get("protect_default"),
    )
    return JSONResponse(_repository(changed))


ENDPOINTS = (
    Endpoint("GET", "/grants", list_grants, "grants:read"),
    Endpoint("POST", "/grants", give_grant, "grants:write"),
    Endpoint("DELETE", "/grants/{grant}", take_back_grant, "grants:write"),
    Endpoint("GET", "/servers/{server}/credentials", list_credentials, "credentials:read"),
    Endpoint("POST", "/servers/{server}/credentials", add_credential, "credentials:write"),
    Endpoint("DELETE", "/servers/{server}/credentials/{credential}", delete_credential, "credentials:write"),
    Endpoint("GET", "/user-keys", list_user_keys, "people:read"),
    Endpoint("GET", "/tokens", list_tokens, "people:read"),
    Endpoint("DELETE", "/tokens/{token}", revoke_token, "people:write"),
    Endpoint("GET", "/repositories/{repository}", show_repository, "codeartsrepo:repository:getRepository"),
    Endpoint("PATCH", "/repositories/{repository}", change_repository, "codeartsrepo:repository:setRepository"),
)


def _server_id(call: Call) -> int:
    """The id in the path as it is; only a name is looked up, which takes servers:read as well."""
    return call.ids["server"] or servers.named(call.instance, call.actor, call.path["server"]).id


def _grant(grant: Grant, names: grants.Names) -> dict[str, Any]:
    return {
        "id": grant.id,
        "user": names.users.get(grant.user_id or 0),
        "group": names.groups.get(grant.group_id or 0),
        "server": names.servers.get(grant.server_id or 0),
        "server_id": grant.server_id,
        "tag": grant.tag,
        "system_user": grant.system_user,
        "expires_at": form.time(grant.expires_at),
        "restrictions": dict(grant.restrictions),
        "created_at": form.time(grant.created_at),
    }


def _uses(used: tuple[Use, ...]) -> list[dict[str, Any]]:
    return [
        {"server": one.server or "git", "server_id": one.server_id, "at": form.time(one.at), "address": one.address}
        for one in used
    ]


def _credential(one: Credential, used: tuple[Use, ...]) -> dict[str, Any]:
    return form.credential(one) | {
        "temporary": one.temporary,
        "delivered": one.delivered,
        "created_at": form.time(one.created_at),
        "last_used_at": form.time(used[0].at) if used else None,
        "last_used_from": used[0].address if used else None,
    }


def _user_key(key: UserKey, names: dict[int, str], used: tuple[Use, ...]) -> dict[str, Any]:
    return {
        "id": key.id,
        "user": names.get(key.user_id),
        "title": key.title,
        "fingerprint": key.fingerprint,
        "public_key": key.line,
        "created_at": form.time(key.created_at),
        "last_uses": _uses(used),
    }


def _token(found: Bearer) -> dict[str, Any]:
    token = found.token
    return {
        "id": token.id,
        "name": token.name,
        "user": found.user.name,
        "scopes": list(token.scopes),
        "created_at": form.time(token.created_at),
        "expires_at": form.time(token.expires_at),
        "last_used_at": form.time(token.last_used_at),
    }


def _repository(found: Repository) -> dict[str, Any]:
    return {
        "id": found.id,
        "path": found.path,
        "visibility": found.visibility,
        "default_branch": found.default_branch,
        "protect_default": found.protect_default,
    }
