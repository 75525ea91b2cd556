"""GitHub's users and keys as JSON, and the schemas of its calls; must call no use case."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from keyrack.model import User, UserKey
from keyrack.web.api import Call
from keyrack.web.github.parameters import moment
from keyrack.web.shapes import TEXT, TEXT_OR_NULL, WHOLE, YES_OR_NO, Schema, Shape, many, named, record, texts

SCHEMAS: dict[str, Schema] = {
    "github.Error": record(
        texts("message", "documentation_url", "status"),
        detail={"type": "string", "description": "the same in Keyrack's words, with what to do next"},
        errors=many(record(texts("resource", "code", "field"), message=TEXT)),
    ),
    "github.User": record(
        {
            "login": TEXT,
            "id": WHOLE,
            **texts("url", "html_url", "type"),
            "site_admin": YES_OR_NO,
            **texts("name", "created_at"),
        }
    ),
    "github.OwnKey": record(
        {
            "id": WHOLE,
            **texts("key", "url", "title", "created_at"),
            "verified": YES_OR_NO,
            "read_only": YES_OR_NO,
            "last_used": TEXT_OR_NULL,
        }
    ),
    "github.Key": record({"id": WHOLE, "key": TEXT, "created_at": TEXT, "last_used": TEXT_OR_NULL}),
}
_PAGE = ("page", "per_page")
SHAPES: dict[str, Shape] = {
    "github.show_myself": Shape(named("github.User")),
    "github.show_user": Shape(named("github.User")),
    "github.list_own_keys": Shape(many(named("github.OwnKey")), query=_PAGE),
    "github.show_own_key": Shape(named("github.OwnKey")),
    "github.add_own_key": Shape(named("github.OwnKey"), record({"key": TEXT}, title=TEXT), status=201),
    "github.delete_own_key": Shape(None, status=204),
    "github.list_keys": Shape(many(named("github.Key")), query=_PAGE),
}


def base(call: Call) -> str:
    """The address of GitHub's API here, as the caller called it: clients follow what is below it alone."""
    root = str(call.request.scope["root_path"])
    return call.instance.settings.url + ("/api/v3" if root.startswith("/api/v3") else root)


def user(call: Call, found: User) -> dict[str, Any]:
    """A user as GitHub shows one."""
    return {
        "login": found.name,
        "id": found.id,
        "url": f"{base(call)}/users/{quote(found.name)}",
        "html_url": f"{call.instance.settings.url}/{quote(found.name)}.keys",
        "type": "User",
        "site_admin": False,
        "name": found.name,
        "created_at": moment(found.created_at),
    }


def own_key(call: Call, user_key: UserKey) -> dict[str, Any]:
    """A key as its owner sees it."""
    return {
        "id": user_key.id,
        "key": user_key.public_key,
        "url": f"{base(call)}/user/keys/{user_key.id}",
        "title": user_key.title or user_key.comment or "",
        "created_at": moment(user_key.created_at),
        "verified": True,
        "read_only": False,
        "last_used": None,
    }


def key(user_key: UserKey) -> dict[str, Any]:
    """A key as everybody sees it, without its comment."""
    return {"id": user_key.id, "key": user_key.public_key, "created_at": moment(user_key.created_at), "last_used": None}
