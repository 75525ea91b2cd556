"""RunCloud API v3 (and v2's SSH side): reads, calls the core, shows; must hold no rule of its own but its grammar."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from keyrack.core import credentials, servers, system_users, tokens
from keyrack.core.instance import Instance
from keyrack.errors import Kind, Refusal, invalid
from keyrack.model import Actor, Credential, Page, Server, SystemUser
from keyrack.web import bodies
from keyrack.web.dialect import Call, Dialect, Endpoint, address_of

T = TypeVar("T")

PER_PAGE = 15
MOST_PER_PAGE = 40
# Laravel's alpha_dash, whose letters and digits are of any script.
LABEL = re.compile(r"[\w-]+")
CUT_AT = 50

FIELDS = {"public_key": "publicKey", "address": "ipAddress"}
STATUS = {
    Kind.UNAUTHENTICATED: 401,
    Kind.FORBIDDEN: 403,
    Kind.MISSING: 404,
    Kind.INVALID: 422,
    Kind.TAKEN: 422,
    Kind.LIMIT: 422,
    Kind.THROTTLED: 429,
    Kind.UNAVAILABLE: 500,
}
MESSAGES = {
    Kind.FORBIDDEN: "This action is unauthorized.",
    Kind.MISSING: "Resources not found.",
    Kind.THROTTLED: "Too Many Attempts.",
    Kind.UNAVAILABLE: "Server Error",
}


def ping(call: Call) -> Response:
    """GET /ping"""
    return JSONResponse({"message": "pong"})


def list_servers(call: Call) -> Response:
    """GET /servers"""
    offset, limit = _window(call.query)
    found = servers.find(call.instance, call.actor, search=call.query.get("search", ""), offset=offset, limit=limit)
    return _listed(call, found, _server)


def create_server(call: Call) -> Response:
    """POST /servers"""
    _required(call.body, "name", "ipAddress")
    server = servers.create(
        call.instance,
        call.actor,
        name=call.body["name"],
        address=call.body["ipAddress"],
        provider=call.body.get("provider") or None,
    )
    return JSONResponse(_server(server))


def show_server(call: Call) -> Response:
    """GET /servers/{serverId}"""
    return JSONResponse(_server(servers.get(call.instance, call.actor, call.ids["serverId"])))


def list_system_users(call: Call) -> Response:
    """GET /servers/{serverId}/users"""
    offset, limit = _window(call.query)
    found = system_users.find(
        call.instance,
        call.actor,
        call.ids["serverId"],
        search=call.query.get("search", ""),
        offset=offset,
        limit=limit,
    )
    return _listed(call, found, _system_user)


def create_system_user(call: Call) -> Response:
    """POST /servers/{serverId}/users"""
    _required(call.body, "username")
    user = system_users.create(call.instance, call.actor, call.ids["serverId"], username=call.body["username"])
    return JSONResponse(_system_user(user))


def list_credentials(call: Call) -> Response:
    """GET /servers/{serverId}/ssh/credentials"""
    offset, limit = _window(call.query)
    search = call.query.get("label") or call.query.get("search") or ""
    found = credentials.find(call.instance, call.actor, call.ids["serverId"], search=search, offset=offset, limit=limit)
    return _listed(call, found, lambda credential: _credential(call.instance, credential))


def add_credential(call: Call) -> Response:
    """POST /servers/{serverId}/ssh/credentials"""
    _required(call.body, "label", "username", "publicKey")
    label = call.body["label"]
    if isinstance(label, str) and not LABEL.fullmatch(label):
        words = "The label field must only contain letters, numbers, dashes, and underscores."
        raise invalid("label", words)
    credential = credentials.add(
        call.instance,
        call.actor,
        call.ids["serverId"],
        label=label,
        username=call.body["username"],
        public_key=call.body["publicKey"],
        temporary=_boolean(call, "temporary", default=False),
    )
    return JSONResponse(_credential(call.instance, credential))


def show_credential(call: Call) -> Response:
    """GET /servers/{serverId}/ssh/credentials/{sshId}"""
    found = credentials.get(call.instance, call.actor, call.ids["serverId"], call.ids["sshId"])
    return JSONResponse(_credential(call.instance, found))


def delete_credential(call: Call) -> Response:
    """DELETE /servers/{serverId}/ssh/credentials/{sshId}"""
    gone = credentials.delete(call.instance, call.actor, call.ids["serverId"], call.ids["sshId"])
    return JSONResponse(_credential(call.instance, gone))


CREDENTIALS = "/servers/{serverId}/ssh/credentials"
ENDPOINTS = (
    Endpoint("GET", "/ping", ping),
    Endpoint("GET", "/servers", list_servers),
    Endpoint("POST", "/servers", create_server),
    Endpoint("GET", "/servers/{serverId}", show_server),
    Endpoint("GET", "/servers/{serverId}/users", list_system_users),
    Endpoint("POST", "/servers/{serverId}/users", create_system_user),
    Endpoint("GET", CREDENTIALS, list_credentials),
    Endpoint("POST", CREDENTIALS, add_credential),
    Endpoint("GET", CREDENTIALS + "/{sshId}", show_credential),
    Endpoint("DELETE", CREDENTIALS + "/{sshId}", delete_credential),
)


def authenticate(instance: Instance, request: Request) -> Actor:
    """The actor of `Authorization: Bearer TOKEN`. Raises Refusal UNAUTHENTICATED."""
    headers = request.headers.getlist("authorization")
    if not headers:
        raise Refusal(Kind.UNAUTHENTICATED, "token-lacking", "Missing API Token.")
    scheme, _, secret = headers[0].partition(" ")
    if len(headers) > 1 or scheme.lower() != "bearer":
        raise Refusal(Kind.UNAUTHENTICATED, "token-not-in-force", "Unauthenticated.")
    try:
        return tokens.authenticate(instance, secret.strip(), address=address_of(request), door="runcloud")
    except Refusal as refusal:
        raise Refusal(refusal.kind, refusal.code, "Unauthenticated.") from None


def read_body(request: Request, content: bytes) -> tuple[Mapping[str, Any], bool]:
    """The fields of a JSON or form body; a body without a type is taken for JSON, as programs omit it."""
    kind = bodies.media_type(request)
    if kind == "application/x-www-form-urlencoded":
        return bodies.form(content), True
    if kind in ("", "application/json") or kind.endswith("+json"):
        return bodies.json_object(content), False
    raise bodies.malformed("The body must be JSON or a form.", "content-type")


def refuse(request: Request, refusal: Refusal) -> Response:
    """A refusal in RunCloud's shape: `message`, with `errors` for fields."""
    status = STATUS[refusal.kind]
    message = MESSAGES.get(refusal.kind, refusal.message)
    body: dict[str, Any] = {"message": message}
    if status == 422 and refusal.field is not None:
        body["errors"] = {FIELDS.get(refusal.field, refusal.field): [message]}
    headers = {"Retry-After": str(refusal.retry_after)} if refusal.retry_after else None
    return JSONResponse(body, status, headers=headers)


def unknown_path(request: Request) -> Response:
    """404 in RunCloud's words."""
    return JSONResponse({"message": MESSAGES[Kind.MISSING]}, 404)


def not_supported(request: Request, methods: tuple[str, ...]) -> Response:
    """405 in Laravel's words."""
    words = f"The {request.method} method is not supported for this route."
    supported = ", ".join(methods)
    return JSONResponse({"message": f"{words} Supported methods: {supported}."}, 405, headers={"Allow": supported})


DIALECT = Dialect(
    name="runcloud",
    endpoints=ENDPOINTS,
    authenticate=authenticate,
    refuse=refuse,
    unknown_path=unknown_path,
    not_supported=not_supported,
    read_body=read_body,
)


def _required(body: Mapping[str, Any], *names: str) -> None:
    for name in names:
        if body.get(name) in (None, ""):
            raise invalid(name, f"The {name} field is required.")
        if not isinstance(body[name], str):
            raise invalid(name, f"The {name} field must be a string.")


def _boolean(call: Call, name: str, *, default: bool) -> bool:
    value = call.body.get(name, default)
    if call.strings:
        value = {"1": True, "true": True, "0": False, "false": False}.get(value, value)
    if not isinstance(value, bool):
        raise invalid(name, f"The {name} field must be true or false.")
    return value


def _window(query: Mapping[str, str]) -> tuple[int, int]:
    """Offset and limit of a page; RunCloud clamps `perPage` to 40."""
    number = _whole(query, "page", 1)
    per_page = min(_whole(query, "perPage", PER_PAGE), MOST_PER_PAGE)
    return (number - 1) * per_page, per_page


def _whole(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name, "")
    if text == "":
        return default
    value = bodies.number(text)
    if value is None:
        raise invalid(name, f"The {name} field must be an integer.")
    if value < 1:
        raise invalid(name, f"The {name} field must be at least 1.")
    return value


def _listed(call: Call, found: Page[T], show: Callable[[T], dict[str, Any]]) -> Response:
    current = found.offset // found.limit + 1
    pages = max(1, -(-found.total // found.limit))
    links: dict[str, str] = {}
    base = f"{call.instance.settings.url}{call.request.scope['path']}"
    if current > 1:
        links["previous"] = f"{base}?page={current - 1}&perPage={found.limit}"
    if current < pages:
        links["next"] = f"{base}?page={current + 1}&perPage={found.limit}"
    pagination = {
        "total": found.total,
        "count": len(found.items),
        "per_page": found.limit,
        "current_page": current,
        "total_pages": pages,
        "links": links,
    }
    return JSONResponse({"data": [show(item) for item in found.items], "meta": {"pagination": pagination}})


def _date(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def _credential(instance: Instance, credential: Credential) -> dict[str, Any]:
    line = credential.line
    if instance.settings.cut_public_key:
        line = line[:CUT_AT] + "..."
    return {
        "id": credential.id,
        "label": credential.label,
        "user": credential.username,
        "publicKey": line,
        "temporary": credential.temporary,
        "created_at": _date(credential.created_at),
        "fingerprint": credential.fingerprint,
        "expires_at": _date(credential.expires_at) if credential.expires_at else None,
    }


def _server(server: Server) -> dict[str, Any]:
    return {
        "id": server.id,
        "name": server.name,
        "provider": server.provider,
        "stack": "native",
        "ipAddress": server.address,
        "country_iso_code": None,
        "os": server.os,
        "osVersion": server.os_version,
        "connected": server.enrolled_at is not None,
        "online": False,
        "agentVersion": server.agent_version,
        "phpCLIVersion": None,
        "softwareUpdate": False,
        "securityUpdate": False,
        "transferStatus": "AVAILABLE",
        "created_at": _date(server.created_at),
        "tags": list(server.tags),
    }


def _system_user(user: SystemUser) -> dict[str, Any]:
    return {
        "id": user.id,
        "username": user.username,
        "deploymentKey": user.deployment_key,
        "deleteable": user.deletable,
        "created_at": _date(user.created_at),
    }
