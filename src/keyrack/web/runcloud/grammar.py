"""RunCloud's conventions: fields with Laravel's messages, pages, dates; must know no resource."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import urlencode

from starlette.responses import JSONResponse, Response

from keyrack.core.hosts import account_passwords
from keyrack.errors import Kind, Refusal, invalid
from keyrack.model import Page
from keyrack.web import bodies
from keyrack.web.api import Call

T = TypeVar("T")

_PLAIN = re.compile(r"[A-Za-z0-9_-]*")
_INTEGER = re.compile(r"-?[0-9]+")
PER_PAGE = 15
MAX_PER_PAGE = 40

# The core's names of arguments that have other names in this API.
SPELLINGS = {
    "public_key": "publicKey",
    "address": "ipAddress",
    "passwordless_login": "passwordlessLogin",
    "prevent_root_login": "preventRootLogin",
    "use_dns": "useDns",
}
# RunCloud's (Laravel's) sentences for what the core refuses by these codes.
WORDS = {
    "label-taken": "The label has already been taken.",
    "username-taken": "The username has already been taken.",
    "password-short": f"The password field must be at least {account_passwords.SHORTEST} characters.",
    "password-long": f"The password field must not be longer than {account_passwords.LONGEST_BYTES} bytes.",
}
FORM_BOOLEANS = {"1": True, "true": True, "0": False, "false": False}


class Unprocessable(Refusal):
    """All fields that cannot be accepted; errors: messages by field, in the order in which the fields were read;
    recorded: whether the core refused one of them, and so recorded an event.
    """

    def __init__(self, errors: Mapping[str, list[str]], *, recorded: bool) -> None:
        first = next(iter(errors))
        super().__init__(Kind.INVALID, "invalid", errors[first][0], field=first)
        self.errors = dict(errors)
        self.recorded = recorded


class Fields:
    """Reads the fields of a body and collects what is wrong, so that one answer names all of it."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._errors: dict[str, list[str]] = {}
        self._read: list[str] = []

    def text(self, name: str) -> str:
        """A required field of text; "" where something is wrong with it, which is noted."""
        self._read.append(name)
        value = self._call.body.get(name)
        if value is None or value == "":
            self.wrong(name, f"The {name} field is required.")
        return self._as_text(name, value)

    def text_or_none(self, name: str) -> str | None:
        """An optional field of text; None if it is missing, null or empty."""
        self._read.append(name)
        value = self._call.body.get(name)
        return None if value is None or value == "" else self._as_text(name, value)

    def boolean(self, name: str) -> bool:
        """An optional boolean field, False if it is missing; in a form also 1 and 0."""
        self._read.append(name)
        value = self._call.body.get(name, False)
        if self._call.strings and isinstance(value, str):
            value = FORM_BOOLEANS.get(value, value)
        if isinstance(value, bool):
            return value
        self.wrong(name, f"The {name} field must be true or false.")
        return False

    def has(self, name: str) -> bool:
        """Whether the body has the field, even as null."""
        return name in self._call.body

    def wrong(self, name: str, text: str) -> None:
        """Note what is wrong with a field."""
        self._errors.setdefault(name, []).append(text)

    def through(self, use_case: Callable[[], T], wrong: Callable[[], Iterable[Refusal]]) -> T:
        """Call a use case and return its result. Raises Unprocessable if fields were wrong before, or it refuses one.

        A use case refuses only the first wrong field; `wrong` returns the refusals of all.
        """
        if self._errors:
            self._refused(wrong())
            self.check()
        try:
            return use_case()
        except Refusal as refusal:
            if refusal.kind not in (Kind.INVALID, Kind.TAKEN):
                raise
            self._refused((refusal, *wrong()))
            self.check(recorded=True)
            raise

    def check(self, *, recorded: bool = False) -> None:
        """Raise Unprocessable if anything was wrong; recorded: as there."""
        if self._errors:
            order = {name: place for place, name in enumerate(self._read)}
            errors = sorted(self._errors.items(), key=lambda error: order.get(error[0], len(order)))
            raise Unprocessable(dict(errors), recorded=recorded)

    def _refused(self, refusals: Iterable[Refusal]) -> None:
        """Note the core's refusals of fields with which nothing was wrong so far."""
        noted = set(self._errors)
        for refusal in refusals:
            name = SPELLINGS.get(refusal.field or "body", refusal.field or "body")
            if name not in noted and words(refusal) not in self._errors.get(name, ()):
                self.wrong(name, words(refusal))

    def _as_text(self, name: str, value: Any) -> str:
        if isinstance(value, str) or value is None:
            return value or ""
        self.wrong(name, f"The {name} field must be a string.")
        return ""


def words(refusal: Refusal) -> str:
    """A refusal in RunCloud's sentence where it has one, else in the core's."""
    return WORDS.get(refusal.code, refusal.message)


def is_v2(call: Call) -> bool:
    """Whether a call is to v2, whose objects differ a little."""
    return str(call.request.scope["root_path"]).endswith("/v2")


def is_alpha_dash(text: str) -> bool:
    """Laravel's alpha_dash: letters, marks and digits of any script, - and _."""
    return _PLAIN.fullmatch(text) is not None or all(
        character in "-_" or unicodedata.category(character)[0] in "LMN" for character in text
    )


def window(call: Call) -> dict[str, Any]:
    """Offset and limit of the requested page; a larger `perPage` counts as 40, as at RunCloud. Raises Refusal."""
    number = _whole(call.query, "page", 1)
    per_page = min(_whole(call.query, "perPage", PER_PAGE), MAX_PER_PAGE)
    return {"offset": (number - 1) * per_page, "limit": per_page}


def listed(call: Call, page: Page[T], show: Callable[[T], dict[str, Any]]) -> Response:
    """A page in RunCloud's envelope."""
    return JSONResponse({"data": [show(item) for item in page.items], "meta": pagination(call, page)})


def pagination(call: Call, page: Page[Any]) -> dict[str, Any]:
    """The `meta` of RunCloud's envelope for a page, with the URLs of the previous and the next page."""
    current = page.offset // page.limit + 1
    pages = max(1, -(-page.total // page.limit))
    links: dict[str, str] = {}
    if current > 1:
        links["previous"] = _address(call, current - 1, page.limit)
    if current < pages:
        links["next"] = _address(call, current + 1, page.limit)
    return {
        "pagination": {
            "total": page.total,
            "count": len(page.items),
            "per_page": page.limit,
            "current_page": current,
            "total_pages": pages,
            "links": links,
        }
    }


def date(at: datetime) -> str:
    """RunCloud's form of a time."""
    return at.astimezone(UTC).isoformat(" ", "seconds")[:19]


def date_or_none(at: datetime | None) -> str | None:
    """RunCloud's form of a time, or null."""
    return None if at is None else date(at)


def log_date(at: datetime) -> str:
    """RunCloud's form of a time in logs: ISO 8601 with microseconds and Z."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _address(call: Call, page: int, per_page: int) -> str:
    kept = {name: value for name, value in call.query.items() if name not in ("page", "perPage")}
    others = f"{urlencode(kept)}&" if kept else ""
    return f"{call.instance.settings.url}{call.request.scope['path']}?{others}page={page}&perPage={per_page}"


def _whole(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name, "")
    if text == "":
        return default
    value = bodies.number(text)
    if value is None and _INTEGER.fullmatch(text) is None:
        raise invalid(name, f"The {name} field must be an integer.")
    if value == 0 or text.startswith("-"):
        raise invalid(name, f"The {name} field must be at least 1.")
    if value is None:
        raise invalid(name, f"The {name} field must not be greater than {bodies.LARGEST_NUMBER}.")
    return value
