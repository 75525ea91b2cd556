"""Reads what CodeArts' calls send: pages, texts, roles; must decide nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keyrack.errors import invalid
from keyrack.model import RepositoryRole
from keyrack.web import bodies
from keyrack.web.api import Call
from keyrack.web.codearts.shapes import ROLE_NUMBERS

LONGEST_SEARCH = 2000
ROLES = {number: role for role, number in ROLE_NUMBERS.items()}


def whole(query: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    """A whole number of a query, between two bounds; raises Refusal INVALID."""
    text = query.get(name)
    if text is None:
        return default
    value = bodies.number(text)
    if value is None or not least <= value <= most:
        raise invalid(name, f"{name} takes a whole number from {least} to {most}.")
    return value


def window(query: Mapping[str, str]) -> tuple[int, int]:
    """v4's offset and limit; raises Refusal INVALID."""
    return whole(query, "offset", 0, 0, bodies.LARGEST_ID), whole(query, "limit", 20, 1, 100)


def pages(query: Mapping[str, str]) -> tuple[int, int]:
    """v1's and v2's page_index and page_size as offset and limit; raises Refusal INVALID."""
    number = whole(query, "page_index", 1, 1, bodies.LARGEST_ID)
    size = whole(query, "page_size", 20, 1, 100)
    return min((number - 1) * size, bodies.LARGEST_ID), size


def searched(query: Mapping[str, str], name: str) -> str:
    """A text to look for; raises Refusal INVALID when it is too long."""
    text = query.get(name, "")
    if len(text) > LONGEST_SEARCH:
        raise invalid(name, f"{name} takes at most {LONGEST_SEARCH} characters.")
    return text


def role(value: object, name: str = "role") -> RepositoryRole:
    """A role by its number, 20, 30 or 40, also as text; name: of its field; raises Refusal INVALID."""
    number = bodies.number(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int) or number not in ROLES:
        raise invalid(name, f"{name} takes 20 (viewer), 30 (developer) or 40 (administrator).")
    return ROLES[number]


def text(body: Mapping[str, Any], name: str) -> str:
    """A text of a body; raises Refusal INVALID when it is missing or of another type."""
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise invalid(name, f"{name} takes a text of at least one character.")
    return value


def filled(call: Call, *names: str) -> None:
    """Raise Refusal INVALID if one of these fields is missing, blank or not text, as v1 and v2 do."""
    for name in names:
        value = call.body.get(name)
        if value is None or (isinstance(value, str) and not value.strip()):
            raise invalid(name, f"{name} is empty.", "empty")
        if not isinstance(value, str):
            raise bodies.malformed(f"{name} takes a text.")
