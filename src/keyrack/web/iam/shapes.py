"""How IAM writes and reads what all its calls share: errors, times, parts of bodies; must call no command."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from keyrack.errors import Kind, Refusal
from keyrack.web import bodies
from keyrack.web.iam import authentication
from keyrack.web.shapes import (
    TEXT,
    TEXT_OR_NULL,
    WHOLE,
    YES_OR_NO,
    Schema,
    Shape,
    many,
    named,
    record,
    texts,
)

STATUS = {
    Kind.UNAUTHENTICATED: 401,
    Kind.FORBIDDEN: 403,
    Kind.MISSING: 404,
    Kind.INVALID: 400,
    Kind.TAKEN: 409,
    Kind.LIMIT: 400,
    Kind.THROTTLED: 429,
    Kind.TOO_LARGE: 413,
    Kind.UNAVAILABLE: 503,
    Kind.FAULT: 500,
}


def refuse(request: Request, refusal: Refusal) -> Response:
    """A refusal in Keystone's three fields, or in the gateway's shape where the gateway refuses."""
    gateway = authentication.gateway_refusal(request, refusal)
    if gateway is not None:
        return gateway
    return bodies.retried(error(STATUS[refusal.kind], refusal.message), refusal)


def unknown_path(request: Request) -> Response:
    """404 in Keystone's shape."""
    return error(404, "There is no such API.")


def not_supported(request: Request, methods: tuple[str, ...]) -> Response:
    """405 in Keystone's shape."""
    response = error(405, f"{request.method} is not supported here; supported: {', '.join(methods)}.")
    response.headers["Allow"] = ", ".join(methods)
    return response


def read_body(request: Request, content: bytes) -> tuple[Mapping[str, Any], bool]:
    """The fields of a JSON body, whatever curl called it."""
    return bodies.json_fields(request, content), False


def error(status: int, message: str) -> Response:
    """An error in Keystone's three fields; the SDKs cannot unpack the variant with five."""
    title = HTTPStatus(status).phrase
    return JSONResponse({"error": {"code": status, "message": message, "title": title}}, status)


def part(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object inside a body; raises Refusal INVALID."""
    found = value.get(name)
    if not isinstance(found, dict):
        raise bodies.malformed(f"The body lacks the object {name!r}.")
    return found


def text(value: Mapping[str, Any], name: str) -> str | None:
    """A text inside a body, or None; raises Refusal INVALID for another type."""
    found = value.get(name)
    if found is None or isinstance(found, str):
        return found
    raise bodies.malformed(f"{name!r} must be a string.")


def moment(at: datetime | None) -> str:
    """A time as IAM writes it, UTC with six decimals; "" for never."""
    return "" if at is None else at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


_LINKS = record({"self": TEXT}, previous=TEXT_OR_NULL, next=TEXT_OR_NULL)

SCHEMAS: dict[str, Schema] = {
    "iam.Error": record({"error": record({"code": WHOLE, **texts("message", "title")})}),
    "iam.Named": record(texts("id", "name")),
    "iam.Token": record(
        {
            "methods": many(TEXT),
            **texts("issued_at", "expires_at"),
            "user": record({**texts("id", "name", "password_expires_at"), "domain": named("iam.Named")}),
            "roles": many(named("iam.Named")),
        },
        project=record({**texts("id", "name"), "domain": named("iam.Named")}),
        domain=named("iam.Named"),
        catalog=many({"type": "object"}),
    ),
    "iam.Project": record(
        {
            **texts("id", "name", "domain_id", "parent_id"),
            "enabled": YES_OR_NO,
            "is_domain": YES_OR_NO,
            "description": TEXT,
            "links": _LINKS,
        }
    ),
    "iam.Domain": record({**texts("id", "name"), "enabled": YES_OR_NO, "description": TEXT, "links": _LINKS}),
    "iam.User": record(
        {
            **texts("id", "name", "domain_id"),
            "enabled": YES_OR_NO,
            **texts("password_expires_at", "description"),
            "links": _LINKS,
        }
    ),
    "iam.AccessKey": record(
        {
            **texts("access", "user_id"),
            "status": {"enum": ["active", "inactive"]},
            **texts("description", "create_time"),
        },
        secret=TEXT,
    ),
    "iam.TemporaryAccessKey": record(texts("access", "secret", "securitytoken", "expires_at")),
    "iam.Version": record(
        {
            **texts("id", "status", "updated"),
            "links": many(record(texts("rel", "href"))),
            "media-types": many(record(texts("base", "type"))),
        }
    ),
    "iam.Endpoints": record(
        {
            **texts("id", "type", "name"),
            "endpoints": many(record(texts("id", "url", "region", "region_id", "interface"))),
        }
    ),
}

_NAMED_USER = record({"password": TEXT}, id=TEXT, name=TEXT, domain=record({}, id=TEXT, name=TEXT))
_PLACE = record({}, id=TEXT, name=TEXT, domain=record({}, id=TEXT, name=TEXT))
_SIGN_IN = record(
    {
        "auth": record(
            {"identity": record({"methods": many({"enum": ["password"]}), "password": record({"user": _NAMED_USER})})},
            scope=record({}, project=_PLACE, domain=_PLACE),
        )
    }
)
_PROJECTS = Shape(record({"projects": many(named("iam.Project")), "links": _LINKS}), query=("name",))
_ONE_USER = record({"user": named("iam.User")})
_ONE_KEY = record({"credential": named("iam.AccessKey")})
_POLICY = record({"Statement": many(record({"Effect": {"enum": ["Allow"]}, "Action": many(TEXT)}))}, Version=TEXT)
_BY_TOKEN = record(
    {"methods": many({"enum": ["token"]})}, token=record({}, id=TEXT, duration_seconds=WHOLE), policy=_POLICY
)

# By dialect and handler.
SHAPES: dict[str, Shape] = {
    "iam.issue_token": Shape(record({"token": named("iam.Token")}), _SIGN_IN, status=201, query=("nocatalog",)),
    "iam.validate_token": Shape(record({"token": named("iam.Token")}), query=("nocatalog",)),
    "iam.revoke_token": Shape(None, status=204),
    "iam.show_version": Shape(record({"version": named("iam.Version")})),
    "iam.show_catalog": Shape(record({"catalog": many(named("iam.Endpoints")), "links": _LINKS})),
    "iam.list_projects": _PROJECTS,
    "iam.list_own_projects": _PROJECTS,
    "iam.list_domains": Shape(record({"domains": many(named("iam.Domain")), "links": _LINKS})),
    "iam.list_users": Shape(record({"users": many(named("iam.User")), "links": _LINKS}), query=("name",)),
    "iam.create_user": Shape(_ONE_USER, record({"user": record({"name": TEXT}, password=TEXT)}), status=201),
    "iam.show_user": Shape(_ONE_USER),
    "iam.change_user": Shape(_ONE_USER, record({"user": record({}, enabled=YES_OR_NO, password=TEXT)})),
    "iam.delete_user": Shape(None, status=204),
    "iam.change_own_password": Shape(
        None, record({"user": record(texts("original_password", "password"))}), status=204
    ),
    "iam.create": Shape(_ONE_KEY, record({"credential": record({}, user_id=TEXT, description=TEXT)}), status=201),
    "iam.find": Shape(record({"credentials": many(named("iam.AccessKey"))}), query=("user_id",)),
    "iam.show": Shape(_ONE_KEY),
    "iam.change": Shape(
        _ONE_KEY, record({"credential": record({}, status={"enum": ["active", "inactive"]}, description=TEXT)})
    ),
    "iam.delete": Shape(None, status=204),
    "iam.issue_temporary": Shape(
        record({"credential": named("iam.TemporaryAccessKey")}),
        record({"auth": record({"identity": _BY_TOKEN})}),
        status=201,
    ),
    "iam.caller_identity": Shape(record(texts("account_id", "principal_id", "principal_urn"))),
}
