"""Cursors: texts that say where the next page of a list begins; must hold nothing secret, as anybody can read them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime

from keyrack.errors import Refusal, invalid
from keyrack.model import Place

LONGEST = 1024


def write(place: Place) -> str:
    """The cursor for a place."""
    parts = [part.isoformat() if isinstance(part, datetime) else part for part in place]
    return base64.urlsafe_b64encode(json.dumps(parts, separators=(",", ":")).encode()).decode().rstrip("=")


def list_tag(name: str) -> str:
    """What the cursors of a list begin with, so that it refuses those of others; name: such as /grants."""
    return f"{hashlib.sha256(name.encode()).hexdigest()[:8]}."


def own(tag: str, cursor: str) -> str:
    """A cursor without its list's tag. Raises Refusal INVALID for one of another list, which would skip items here."""
    if cursor and not cursor.startswith(tag):
        raise no_cursor()
    return cursor.removeprefix(tag)


def place(cursor: str | None, *like: type) -> Place | None:
    """Where a page begins: None without a cursor, () for the first page; like: as read() takes it.

    Raises Refusal INVALID.
    """
    if cursor is None:
        return None
    return read(cursor, like) if cursor else ()


def read(cursor: str, like: Sequence[type]) -> Place:
    """The place that a cursor names; like: the types of its parts. Raises Refusal INVALID for any other text."""
    if len(cursor) > LONGEST or not cursor.isascii():
        raise no_cursor()
    try:
        parts = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
        if not isinstance(parts, list):
            raise no_cursor()
        return tuple(_part(value, kind) for value, kind in zip(parts, like, strict=True))
    except (binascii.Error, ValueError, OverflowError, RecursionError):
        raise no_cursor() from None


def _part(value: object, kind: type) -> str | int | datetime:
    """A part of a place, such as every database can compare. Raises ValueError or OverflowError for any other.

    PostgreSQL has no NUL in texts, no database has surrogates, and ids have at most 32 bits.
    """
    if kind is datetime and isinstance(value, str):
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError("no zone")
        return moment.astimezone(UTC)
    if type(value) is not kind:
        raise ValueError("another type")
    if isinstance(value, int) and -(2**31) <= value < 2**31:
        return value
    if isinstance(value, str) and "\0" not in value:
        value.encode("utf-8")  # UnicodeEncodeError is a ValueError
        return value
    raise ValueError("nothing that could be compared")


def no_cursor() -> Refusal:
    """The refusal of a text that is no cursor of this list."""
    return invalid("cursor", "It is the text that the page before of this list gave as next.", "cursor-unknown")
