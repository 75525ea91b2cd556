"""Answers in JSON, written in few steps; must know no API's words."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from starlette.responses import JSONResponse, Response

T = TypeVar("T")

# json.dumps makes an encoder anew each time where it is given any option.
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class JsonAnswer(JSONResponse):
    """The same bytes as a JSONResponse, sooner."""

    def render(self, content: Any) -> bytes:
        """The content as the body."""
        return _encode(content).encode()


class RecordsAsJson(Generic[T]):
    """The JSON of records, kept as long as the very record is: the store answers the same one again where its row is
    the same to the byte (store/rows.py).
    """

    def __init__(self, most: int = 5_000, most_pages: int = 500) -> None:
        """most, most_pages: how many are kept."""
        self._most, self._most_pages = most, most_pages
        self._kept: dict[tuple[int, object], tuple[T, str]] = {}
        self._pages: dict[tuple[tuple[int, ...], object], tuple[tuple[T, ...], str]] = {}

    def text(self, record: T, form: object, show: Callable[[T], Mapping[str, Any]]) -> str:
        """A record as JSON; form: all that its looks depend on besides the record."""
        # The record is kept too, so that no other one gets its number meanwhile.
        kept = self._kept.get((id(record), form))
        if kept is not None:
            return kept[1]
        if len(self._kept) >= self._most:
            self._kept.clear()
        text = _encode(show(record))
        self._kept[id(record), form] = (record, text)
        return text

    def texts(self, records: tuple[T, ...], form: object, show: Callable[[T], Mapping[str, Any]]) -> str:
        """Records as the values of a JSON array, without its brackets; form: as for `text`."""
        of = (tuple(map(id, records)), form)
        kept = self._pages.get(of)
        if kept is not None:
            return kept[1]
        if len(self._pages) >= self._most_pages:
            self._pages.clear()
        text = ",".join([self.text(record, form, show) for record in records])
        self._pages[of] = (records, text)
        return text


def one(text: str) -> Response:
    """An answer that is one thing, as RecordsAsJson has it."""
    return Response(text, media_type="application/json")


def many(name: str, texts: str, others: Mapping[str, Any]) -> Response:
    """An object with things under a name, as RecordsAsJson.texts has them, before its other fields, of which it has."""
    return Response(f'{{"{name}":[{texts}],{_encode(others)[1:]}', media_type="application/json")
