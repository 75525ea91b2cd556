"""GitLab's users and keys as JSON, and the schemas of its calls; must call no use case."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlsplit

from keyrack.core.instance import Instance
from keyrack.model import User, UserKey
from keyrack.web.gitlab.parameters import moment
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

_USER = {
    "id": INTEGER,
    **strings("username", "name"),
    "state": {"enum": ["active", "blocked"]},
    "locked": BOOLEAN,
    "avatar_url": STRING_OR_NULL,
    "web_url": STRING,
    "created_at": STRING,
}
_KEY: dict[str, Schema] = {
    "id": INTEGER,
    **strings("title", "key", "created_at"),
    "expires_at": STRING_OR_NULL,
    "last_used_at": STRING_OR_NULL,
    "usage_type": {"enum": ["auth", "auth_and_signing"]},
}
SCHEMAS: dict[str, Schema] = {
    "gitlab.Error": {
        "type": "object",
        "properties": {
            "message": {"type": ["string", "object"], "description": "what is wrong, or lists of it by field"},
            "error": {"type": "string", "description": "of a parameter or a path, in place of message"},
            "detail": {"type": "string", "description": "the same in Keyrack's words, with what to do next"},
        },
    },
    "gitlab.User": object_of(_USER),
    "gitlab.Key": object_of(_KEY),
    "gitlab.KeyWithUser": object_of({**_KEY, "user": schema_ref("gitlab.User")}),
}
_PAGE = ("page", "per_page")
_NEW = object_of({"title": STRING, "key": STRING}, usage_type={"enum": ["auth_and_signing", "auth"]})
SHAPES: dict[str, Shape] = {
    "gitlab.show_myself": Shape(schema_ref("gitlab.User")),
    "gitlab.find_users": Shape(array_of(schema_ref("gitlab.User")), query=("username", "search", *_PAGE)),
    "gitlab.show_user": Shape(schema_ref("gitlab.User")),
    "gitlab.list_own_keys": Shape(array_of(schema_ref("gitlab.Key")), query=_PAGE),
    "gitlab.show_own_key": Shape(schema_ref("gitlab.Key")),
    "gitlab.add_own_key": Shape(schema_ref("gitlab.Key"), _NEW, status=201),
    "gitlab.delete_own_key": Shape(None, status=204),
    "gitlab.list_keys": Shape(array_of(schema_ref("gitlab.Key")), query=_PAGE),
    "gitlab.show_key": Shape(schema_ref("gitlab.Key")),
    "gitlab.add_key": Shape(schema_ref("gitlab.Key"), _NEW, status=201),
    "gitlab.delete_key": Shape(None, status=204),
    "gitlab.find_key": Shape(schema_ref("gitlab.KeyWithUser"), query=("fingerprint",)),
    "gitlab.show_key_of_anybody": Shape(schema_ref("gitlab.KeyWithUser")),
}


def user(instance: Instance, found: User) -> dict[str, Any]:
    """A user as GitLab shows one; the page that web_url names is the user's keys."""
    return {
        "id": found.id,
        "username": found.name,
        "name": found.name,
        "state": "active" if found.disabled_at is None else "blocked",
        "locked": False,
        "avatar_url": None,
        "web_url": f"{instance.settings.url}/{quote(found.name)}.keys",
        "created_at": moment(found.created_at),
    }


def key(
    instance: Instance, user_key: UserKey, owner: str, used: Mapping[str, datetime] | None = None
) -> dict[str, Any]:
    """A key as GitLab shows one, with the owner's name and the host in place of its comment, which may be private.

    used: when keys were last used, by fingerprint, None for callers who may not see it.
    """
    used_at = (used or {}).get(user_key.fingerprint or "")
    host = urlsplit(instance.settings.url).hostname
    return {
        "id": user_key.id,
        "title": user_key.title or user_key.comment or "",
        "key": f"{user_key.public_key} {owner} ({host})",
        "created_at": moment(user_key.created_at),
        "expires_at": None if user_key.expires_at is None else moment(user_key.expires_at),
        "last_used_at": None if used_at is None else moment(used_at),
        "usage_type": "auth_and_signing",
    }


def key_with_user(
    instance: Instance, user_key: UserKey, owner: User, used: Mapping[str, datetime] | None = None
) -> dict[str, Any]:
    """A key with its user, as administrators see it."""
    return {**key(instance, user_key, owner.name, used), "user": user(instance, owner)}
