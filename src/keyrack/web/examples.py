"""An example of what a schema describes, made from the names of its fields; must know no call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keyrack.web.shapes import Schema

# Made up, as are the addresses (RFC 5737) and the fingerprint.
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
FINGERPRINT = "SHA256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
_UID = "0a1b2c3d4e5f60718293a4b5c6d7e8f9"
_TIME = "2026-11-22T16:00:00Z"
_BY_NAME: dict[str, Any] = {
    "publicKey": PUBLIC_KEY,
    "public_key": PUBLIC_KEY,
    "key": PUBLIC_KEY,
    "fingerprint": FINGERPRINT,
    "let_in": [FINGERPRINT],
    "label": "laptop",
    "title": "laptop",
    "key_title": "build",
    "username": "deploy",
    "system_user": "deploy",
    "user": "alice",
    "name": "alice",
    "id": _UID,
    "group": None,
    "tag": None,
    "server": "web-1",
    "password": "a long password of alice",
    "original_password": "the password of alice so far",
    "ipAddress": "192.0.2.10",
    "address": "192.0.2.10",
    "restrictions": {"sources": ["192.0.2.0/24"]},
    "Action": ["codeartsrepo:*"],
    "Version": "1.1",
    "duration_seconds": 900,
    "after_seconds": 3600,
    "repository_role_Id": "30",
    "role": 30,
    "user_iam_id": _UID,
    "project_uuid": _UID,
    "key_type": "ssh-ed25519",
}
_ENDS: dict[str, Any] = {"_at": _TIME, "_id": _UID, "uuid": _UID, "url": "https://keyrack.example.org"}
# What a body may hold beside what says the same, or need not hold.
_LEFT_OUT = ("scope", "id", "provider")


def example(schema: Schema, known: Mapping[str, Schema], *, name: str = "", body: bool = False) -> Any:
    """One value that a schema describes; known: the schemas it may name; body: for a request, so without what is
    optional and rather left out.
    """
    if "$ref" in schema:
        return example(known[schema["$ref"].rpartition("/")[2]], known, name=name, body=body)
    if "allOf" in schema:
        parts = [example(part, known, body=body) for part in schema["allOf"]]
        return {field: value for part in parts for field, value in part.items()}
    if schema.get("examples"):
        return schema["examples"][0]
    if "const" in schema:
        return schema["const"]
    if "anyOf" in schema:
        return example(schema["anyOf"][0], known, name=name, body=body)
    kinds = schema.get("type", "string")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if "object" in kinds and "properties" in schema:
        return {
            field: example(inner, known, name=field, body=body)
            for field, inner in schema["properties"].items()
            if not (body and field in _LEFT_OUT and field not in schema.get("required", ()))
        }
    if "enum" in schema:
        return schema["enum"][0]
    if name in _BY_NAME and _fits(_BY_NAME[name], kinds):
        return _BY_NAME[name]
    if "array" in kinds:
        return [example(schema["items"], known, body=body)]
    return _plain(kinds, name)


def _plain(kinds: list[str], name: str) -> Any:
    for kind, value in (("boolean", False), ("integer", 1), ("number", 0.5), ("object", {})):
        if kind in kinds:
            return value
    return next((value for end, value in _ENDS.items() if name.endswith(end)), name or "text")


def _fits(value: Any, kinds: list[str]) -> bool:
    kind = {str: "string", int: "integer", list: "array", dict: "object", type(None): "null"}[type(value)]
    return kind in kinds
