"""What a column is read as where SQLite hands over what it does not hold: others alone write that; must know no table.

SQLite keeps bytes in a column of text, and text in one of numbers or bytes. One such row would end every question that
reads it along with others. It is read as something that no row of ours says: its seal, where it has one, does not hold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import BigInteger, Dialect, Integer, LargeBinary, String, Text

from keyrack.store.tables.columns import as_bytes, as_number, as_text


def _of_text(value: Any) -> str | None:
    return None if value is None else as_text(value)


def _of_number(value: Any) -> int | None:
    return None if value is None else as_number(value)


def _of_bytes(value: Any) -> bytes | None:
    return None if value is None else as_bytes(value)


CHECKS: frozenset[Callable[[Any], Any]] = frozenset((_of_text, _of_number, _of_bytes))
"""They change nothing where a value is of its column's type, or empty."""


class _String(String):
    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], str | None]:
        return _of_text


class _Text(Text):
    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], str | None]:
        return _of_text


class _Integer(Integer):
    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], int | None]:
        return _of_number


class _BigInteger(BigInteger):
    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], int | None]:
        return _of_number


class _LargeBinary(LargeBinary):
    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], bytes | None]:
        return _of_bytes


def use(dialect: Dialect) -> None:
    """Have all that is read by this dialect, which is SQLite's, be of the types that the columns say."""
    types = {String: _String, Text: _Text, Integer: _Integer, BigInteger: _BigInteger, LargeBinary: _LargeBinary}
    dialect.colspecs = {**dialect.colspecs, **types}
