"""Marks of where a list was left, which the next page begins after; must hold nothing secret, as anybody reads them."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence

from keyrack.errors import Refusal, invalid

LONGEST = 1024


def write(place: Sequence[str | int]) -> str:
    """The mark of a place, which is named by texts and whole numbers."""
    return base64.urlsafe_b64encode(json.dumps(list(place), separators=(",", ":")).encode()).decode().rstrip("=")


def read(mark: str, like: Sequence[type], *, field: str = "cursor") -> tuple[str | int, ...]:
    """The place that a mark names; like: the types of its parts. Raises Refusal INVALID for any other text."""
    if len(mark) > LONGEST or not mark.isascii():
        raise _no_mark(field)
    try:
        place = json.loads(base64.b64decode(mark + "=" * (-len(mark) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        raise _no_mark(field) from None
    if not isinstance(place, list) or [type(part) for part in place] != list(like):
        raise _no_mark(field)
    if any(isinstance(part, int) and not -(2**31) <= part < 2**31 for part in place):
        raise _no_mark(field)
    return tuple(place)


def _no_mark(field: str) -> Refusal:
    return invalid(field, "It is the text that the page before gave as next.", "cursor-unknown")
