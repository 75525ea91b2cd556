"""GitHub's users and keys as JSON, and the schemas of its calls; must call no use case."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

from keyrack.model import User, UserKey
from keyrack.web.api import Call
from keyrack.web.github.parameters import moment
from keyrack.web.shapes import (
    BOOLEAN,
    INTEGER,
    STRING,
    STRING_OR_NULL,
    Schema,
    Shape,
    array_of,
    object_of,
    schema_ref,
    strings,
)

SCHEMAS: dict[str, Schema] = {
    "github.Error": object_of(
        strings("message", "documentation_url", "status"),
        detail={"type": "string", "description": "the same in Keyrack's words, with what to do next"},
        errors=array_of(object_of(strings("resource", "code", "field"), message=STRING)),
    ),
    "github.User": object_of(
        {
            "login": STRING,
            "id": INTEGER,
            **strings("url", "html_url", "type"),
            "site_admin": BOOLEAN,
            **strings("name", "created_at"),
        }
    ),
    "github.OwnKey": object_of(
        {
            "id": INTEGER,
            **strings("key", "url", "title", "created_at"),
            "verified": BOOLEAN,
            "read_only": BOOLEAN,
            "last_used": STRING_OR_NULL,
        }
    ),
    "github.Key": object_of({"id": INTEGER, "key": STRING, "created_at": STRING, "last_used": STRING_OR_NULL}),
}
_PAGE = ("page", "per_page")
SHAPES: dict[str, Shape] = {
    "github.show_myself": Shape(schema_ref("github.User")),
    "github.show_user": Shape(schema_ref("github.User")),
    "github.list_own_keys": Shape(array_of(schema_ref("github.OwnKey")), query=_PAGE),
    "github.show_own_key": Shape(schema_ref("github.OwnKey")),
    "github.add_own_key": Shape(schema_ref("github.OwnKey"), object_of({"key": STRING}, title=STRING), status=201),
    "github.delete_own_key": Shape(None, status=204),
    "github.list_keys": Shape(array_of(schema_ref("github.Key")), query=_PAGE),
}


def base(call: Call) -> str:
    """The URL of GitHub's API by the path that the caller used: clients only follow links below it."""
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


def own_key(call: Call, user_key: UserKey, used: Mapping[str, datetime] | None = None) -> dict[str, Any]:
    """A key as its owner sees it; used: when keys were last used, by fingerprint."""
    used_at = (used or {}).get(user_key.fingerprint or "")
    return {
        "id": user_key.id,
        "key": user_key.public_key,
        "url": f"{base(call)}/user/keys/{user_key.id}",
        "title": user_key.title or user_key.comment or "",
        "created_at": moment(user_key.created_at),
        "verified": True,
        "read_only": False,
        "last_used": None if used_at is None else moment(used_at),
    }


def key(user_key: UserKey, used: Mapping[str, datetime]) -> dict[str, Any]:
    """A key as everybody sees it, without its comment; used: as for own_key, empty for callers who may not see it."""
    used_at = used.get(user_key.fingerprint or "")
    return {
        "id": user_key.id,
        "key": user_key.public_key,
        "created_at": moment(user_key.created_at),
        "last_used": None if used_at is None else moment(used_at),
    }
