"""Fast JSON responses, with a cache of encoded records; must know no API's fields."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Generic, TypeVar

from starlette.responses import JSONResponse, Response

from keyrack.model import Page

T = TypeVar("T")

LONGEST_KEPT = 256
"""A page is cached only if its `of` has at most so many characters, as callers choose it."""

MAX_RECORDS = 5_000
MAX_PAGES = 500
"""How many records and pages are cached."""

_JSON = (b"content-type", b"application/json")
# Made once: json.dumps makes a new encoder each time it is given an option.
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class JsonAnswer(JSONResponse):
    """The same bytes as a JSONResponse, faster."""

    def render(self, content: Any) -> bytes:
        """The content as JSON."""
        return _encode(content).encode()


class _EncodedAnswer(Response):
    """A response whose body is JSON text already; with fixed headers, which Response would compute each time."""

    def __init__(self, body: bytes) -> None:
        self.status_code = 200
        self.background = None
        self.body = body
        self.raw_headers = [(b"content-length", b"%d" % len(body)), _JSON]


class RecordsAsJson(Generic[T]):
    """Caches the JSON of records. The store returns the same record object as long as its row has not changed
    (store/rows.py), so the JSON of that object is still right.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[int, object], tuple[T, str]] = {}
        self._pages: dict[Hashable, tuple[tuple[T, ...], bytes]] = {}

    def text(self, record: T, form: object, show: Callable[[T], Mapping[str, Any]]) -> str:
        """A record as JSON text; form: all that the JSON depends on besides the record; show: its JSON's content."""
        # The record is kept too, so that no other object gets its id().
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
        """A response with a page's records as the field `name`, followed by the other fields, at least one; form, show:
        as for `text`; of: what the other fields depend on besides the page.
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
    """A response whose body is a JSON text, as RecordsAsJson.text returns it."""
    return _EncodedAnswer(text.encode())
