"""The cursor of a list of damaged rows: the row that the page before ended at, as text; must not ask the database."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Integer

from keyrack.core import cursors
from keyrack.store.sealing import access_tree
from keyrack.store.sealing.seals import SEALED_TABLES

_LONGEST = 500
_INT64 = 2**63
_MISSING = "missing"
_TABLES = {table.name: table for table in SEALED_TABLES}


@dataclass(frozen=True, slots=True)
class RowPlace:
    """A position in the list: a row, by its table and primary key.

    of_missing: a row that is not there any more; key then has two parts, the name of the table whose tree counts it (""
    for the tree itself) and the number in that tree.
    """

    table: str
    key: tuple[Any, ...]
    of_missing: bool = False

    @property
    def can_be_written(self) -> bool:
        """Whether a cursor can hold it: others may have written anything into a key, of any length."""
        plain = all(isinstance(part, int | str) for part in self.key)
        return plain and len(json.dumps(self.key)) <= _LONGEST and "\0" not in "".join(map(str, self.key))


START = RowPlace("", ())


def write(place: RowPlace) -> str:
    """The cursor for a place; only where can_be_written."""
    return cursors.write((_MISSING if place.of_missing else place.table, json.dumps(place.key)))


def read(cursor: str) -> RowPlace:
    """The place that a cursor names. Raises Refusal INVALID for any other text."""
    name, text = map(str, cursors.read(cursor, (str, str)))
    try:
        key = json.loads(text)
    except (ValueError, RecursionError):
        raise cursors.no_cursor() from None
    if not isinstance(key, list):
        raise cursors.no_cursor()
    if name == _MISSING:
        known = len(key) == 2 and key[0] in ("", *access_tree.TREES) and type(key[1]) is int
        if not known:
            raise cursors.no_cursor()
        return RowPlace("", tuple(key), of_missing=True)
    table = _TABLES.get(name)
    if table is None or len(key) != len(table.primary_key):
        raise cursors.no_cursor()
    for column, part in zip(table.primary_key, key, strict=True):
        is_integer = type(part) is int and -_INT64 <= part < _INT64
        if not (is_integer if isinstance(column.type, Integer) else isinstance(part, str) and _can_be_compared(part)):
            raise cursors.no_cursor()
    return RowPlace(name, tuple(key))


def _can_be_compared(text: str) -> bool:
    """Whether a database can compare a text: no surrogates, and no NUL, which PostgreSQL has not."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text
