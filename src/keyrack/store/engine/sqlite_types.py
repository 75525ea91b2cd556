"""Replaces values that SQLite returns and that are not of their column's type; must know no table.

SQLite lets others write bytes into a text column, and text into one of numbers or bytes. One such row would make every
question that reads it fail. So the value is replaced by one that no row of ours has, and the row's seal does not hold.
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
"""They do not change values of the right type, nor None."""


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
    """Let this dialect, which is SQLite's, check all values that it reads."""
    types = {String: _String, Text: _Text, Integer: _Integer, BigInteger: _BigInteger, LargeBinary: _LargeBinary}
    dialect.colspecs = {**dialect.colspecs, **types}
