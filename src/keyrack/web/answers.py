"""Fast JSON answers, with remembered records; must know no API's fields."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Generic, TypeVar

from starlette.responses import JSONResponse, Response

from keyrack.model import Page

T = TypeVar("T")

LONGEST_KEPT = 256
"""A page is remembered only if what it depends on (`of`) has at most so many characters, as callers can vary it."""

MAX_RECORDS = 5_000
MAX_PAGES = 500
"""How many records and pages are remembered."""

_JSON = (b"content-type", b"application/json")
# Made once: json.dumps makes a new encoder each time it is given an option.
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class JsonAnswer(JSONResponse):
    """The same bytes as a JSONResponse, sooner."""

    def render(self, content: Any) -> bytes:
        """The content as the body."""
        return _encode(content).encode()


class _EncodedAnswer(Response):
    """An answer that is JSON already, with fixed headers, which a Response would work out each time."""

    def __init__(self, body: bytes) -> None:
        self.status_code = 200
        self.background = None
        self.body = body
        self.raw_headers = [(b"content-length", b"%d" % len(body)), _JSON]


class RecordsAsJson(Generic[T]):
    """Remembers the JSON of records. The store returns the same record object as long as its row is the same to the
    byte (store/rows.py), so that its JSON still holds.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[int, object], tuple[T, str]] = {}
        self._pages: dict[Hashable, tuple[tuple[T, ...], bytes]] = {}

    def text(self, record: T, form: object, show: Callable[[T], Mapping[str, Any]]) -> str:
        """A record as JSON; form: all that the JSON depends on besides the record."""
        # The record is kept too, so that no other object gets its id() meanwhile.
        kept = self._kept.get((id(record), form))
        if kept is not None:
            return kept[1]
        if len(self._kept) >= MAX_RECORDS:
            self._kept.clear()
        text = _encode(show(record))
        self._kept[id(record), form] = (record, text)
        return text

    def page(
        self,
        page: Page[T],
        form: object,
        show: Callable[[T], Mapping[str, Any]],
        name: str,
        others: Callable[[], Mapping[str, Any]],
        of: str = "",
    ) -> Response:
        """An answer with the records of a page under a name, before its other fields, of which it has; form: as for
        `text`; of: what the other fields depend on besides the page.
        """
        key = (tuple(map(id, page.items)), page.total, page.offset, page.limit, form, of)
        kept = self._pages.get(key)
        if kept is not None:
            return _EncodedAnswer(kept[1])
        texts = ",".join([self.text(record, form, show) for record in page.items])
        body = f'{{"{name}":[{texts}],{_encode(others())[1:]}'.encode()
        if len(of) <= LONGEST_KEPT:
            if len(self._pages) >= MAX_PAGES:
                self._pages.clear()
            self._pages[key] = (page.items, body)
        return _EncodedAnswer(body)


def from_json(text: str) -> Response:
    """An answer whose body is one record, as RecordsAsJson.text has it."""
    return _EncodedAnswer(text.encode())
