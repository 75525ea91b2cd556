"""How CodeArts writes and reads what all its versions share: times, windows, addresses; must call no command."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from starlette.requests import Request

from keyrack.core.instance import Instance
from keyrack.errors import Kind, Refusal, invalid
from keyrack.model import RepositoryRole
from keyrack.web import bodies

LARGEST = 2_147_483_647
NOT_IN_FORCE = "token-not-in-force"
NO_CREDENTIALS_CODE = "DEV.00000001"
UNKNOWN_API = "There is no such API."

# The contract's table of decisions; codes in CodeArts' own series.
ANSWERS: dict[Kind, tuple[int, str]] = {
    Kind.UNAUTHENTICATED: (401, "DEV.00000003"),
    Kind.FORBIDDEN: (403, "CH.004403"),
    Kind.MISSING: (404, "CH.000404"),
    Kind.INVALID: (400, "CH.010001"),
    Kind.TAKEN: (409, "CH.080002"),
    Kind.LIMIT: (400, "CH.010001"),
    Kind.THROTTLED: (429, "APIGW.0308"),
    Kind.TOO_LARGE: (413, "APIGW.0201"),
    Kind.UNAVAILABLE: (503, "CH.000001"),
    Kind.FAULT: (500, "CH.000001"),
}

ROLE_NUMBERS = {RepositoryRole.VIEWER: 20, RepositoryRole.DEVELOPER: 30, RepositoryRole.ADMIN: 40}
ROLES = {number: role for role, number in ROLE_NUMBERS.items()}
VISIBILITIES = {0: "private", 10: "internal", 20: "public"}


def created_at(instance: Instance, at: datetime) -> str:
    """A time as v4 writes it: milliseconds and a numeric offset, in the instance's zone."""
    return at.astimezone(ZoneInfo(instance.settings.time_zone)).isoformat(timespec="milliseconds")


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
    return whole(query, "offset", 0, 0, LARGEST), whole(query, "limit", 20, 1, 100)


def pages(query: Mapping[str, str]) -> tuple[int, int]:
    """v1's and v2's page_index and page_size as offset and limit; raises Refusal INVALID."""
    number = whole(query, "page_index", 1, 1, LARGEST)
    size = whole(query, "page_size", 20, 1, 100)
    return min((number - 1) * size, LARGEST), size


def searched(query: Mapping[str, str], name: str, most: int = 2000) -> str:
    """A text to look for; raises Refusal INVALID when it is too long."""
    text = query.get(name, "")
    if len(text) > most:
        raise invalid(name, f"{name} takes at most {most} characters.")
    return text


def role(value: object) -> RepositoryRole:
    """A role by its number, 20, 30 or 40, also as text; raises Refusal INVALID."""
    number = bodies.number(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int) or number not in ROLES:
        raise invalid("role", "role takes 20 (viewer), 30 (developer) or 40 (administrator).")
    return ROLES[number]


def text(body: Mapping[str, Any], name: str) -> str:
    """A text of a body; raises Refusal INVALID when it is missing or of another type."""
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise invalid(name, f"{name} takes a text of at least one character.")
    return value


def status_and_code(refusal: Refusal) -> tuple[int, str]:
    """The status and code of a refusal, in CodeArts' own series."""
    status, code = ANSWERS[refusal.kind]
    if refusal.code == "no-credentials":
        code = NO_CREDENTIALS_CODE
    return status, code


def read_body(request: Request, content: bytes) -> tuple[Mapping[str, Any], bool]:
    """The fields of a JSON body, whatever curl called it."""
    return bodies.json_fields(request, content), False
