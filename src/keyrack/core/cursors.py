"""Marks of where a list was left, which the next page begins after; must hold nothing secret, as anybody reads them."""

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
    """The mark of a place."""
    parts = [part.isoformat() if isinstance(part, datetime) else part for part in place]
    return base64.urlsafe_b64encode(json.dumps(parts, separators=(",", ":")).encode()).decode().rstrip("=")


def list_tag(name: str) -> str:
    """What the marks of a list begin with, by which it knows its own; name: such as /grants."""
    return f"{hashlib.sha256(name.encode()).hexdigest()[:8]}."


def own(tag: str, mark: str) -> str:
    """A mark without its list's tag; raises Refusal INVALID for a mark of another list, which would skip items here."""
    if mark and not mark.startswith(tag):
        raise no_mark()
    return mark.removeprefix(tag)


def place(mark: str | None, *like: type) -> Place | None:
    """Where a page begins: None where it is not asked for by a mark, () for the first one; like: as read has it.

    Raises Refusal INVALID.
    """
    if mark is None:
        return None
    return read(mark, like) if mark else ()


def read(mark: str, like: Sequence[type]) -> Place:
    """The place that a mark names; like: the types of its parts. Raises Refusal INVALID for any other text."""
    if len(mark) > LONGEST or not mark.isascii():
        raise no_mark()
    try:
        parts = json.loads(base64.b64decode(mark + "=" * (-len(mark) % 4), altchars=b"-_", validate=True))
        if not isinstance(parts, list):
            raise no_mark()
        return tuple(_part(value, kind) for value, kind in zip(parts, like, strict=True))
    except (binascii.Error, ValueError, OverflowError, RecursionError):
        raise no_mark() from None


def _part(value: object, kind: type) -> str | int | datetime:
    """A part of a place, which every database can compare with. Raises ValueError or OverflowError for any other.

    PostgreSQL has no NUL in a text, and no database has half a character or a whole number beyond 32 bits in an id.
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


def no_mark(field: str = "cursor") -> Refusal:
    """The refusal of a text that no page gave."""
    return invalid(field, "It is the text that the page before of this list gave as next.", "cursor-unknown")
