"""One key on many servers: what calls take and answer; must call no use case."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import WithJsonSchema

from keyrack.core.keys.everywhere import Placed as PlacedRecord
from keyrack.web.native.shapes import (
    Answer,
    Fingerprint,
    Flag,
    Id,
    KeyRequest,
    Name,
    PublicKey,
    Request,
    about,
)
from keyrack.web.native.shapes_keys import NewCredential

_TAGGED = {
    "type": "object",
    "properties": {"tag": {"type": "string"}},
    "required": ["tag"],
    "additionalProperties": False,
}
_NAMED = {"type": "array", "items": {"type": ["string", "integer"]}, "minItems": 1}
Servers = Annotated[
    Any,
    WithJsonSchema(
        {"anyOf": [_TAGGED, _NAMED, {"type": "string", "const": "all"}], "examples": [{"tag": "web"}, ["web-1"], "all"]}
    ),
]
"""Which servers: those with a tag, those named or numbered, or all of the workspace."""


class KeyForMany(NewCredential):
    """A key for a system user of many servers."""

    servers: Annotated[Servers, about("On which servers: those with a tag, a list of names or ids, or all.")]


class RevokedOnMany(Request):
    """A key to take from many servers; by its fingerprint or by its label."""

    fingerprint: Annotated[Fingerprint | None, about("The key, as ssh-keygen -l prints it; or label.")] = None
    label: Annotated[str | None, about("What it is called on the servers; or fingerprint.", None)] = None
    servers: Annotated[Servers, about("On which servers: those with a tag, a list of names or ids, or all.")]


class ReplacedOnMany(KeyRequest):
    """A key to put in the place of another one."""

    fingerprint: Annotated[Fingerprint, about("The key that goes, as ssh-keygen -l prints it.")]
    public_key: Annotated[PublicKey, about("The key that comes, one line.")]
    servers: Annotated[Servers, about("On which servers; all where it is left out.")] = "all"


class PlacedKey(Answer):
    """What became of a key on one server."""

    server: Annotated[Name, about("The server's name.")]
    server_id: Annotated[Id, about("Its id.")]
    id: Annotated[Id | None, about("The credential's id; null where the key never stood there.")]
    state: Annotated[str, about("added, present, revoked, absent or replaced.", "added")]
    still_open: Annotated[Flag, about("Whether something else lets the key that was taken away in there.")]


class PlacedKeys(Answer):
    """What became of a key on each server."""

    items: Annotated[list[PlacedKey], about("Server by server.")]


def placed(records: Iterable[PlacedRecord]) -> PlacedKeys:
    """What became of a key on each server."""
    return PlacedKeys(
        items=[
            PlacedKey(server=one.server, server_id=one.server_id, id=one.id, state=one.state, still_open=one.still_open)
            for one in records
        ]
    )
