"""Types of columns, ids, seals and indexes for the tables of both databases; must name no table."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    TypeDecorator,
    text,
)
from sqlalchemy.engine import Dialect

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


UNREADABLE = "unreadable"
"""What is read in place of a value that is not of its column's type. SQLite lets others write such values. No row of
ours has it, so the seal of that row does not hold, and all other rows can still be read.
"""
NO_NUMBER = -1
"""The same in a column of numbers."""


def as_json(text: Any) -> Any:
    """A list or an object from what SQLite returns for it."""
    if text == "{}":
        return {}  # as most are
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return {UNREADABLE: True}


def as_text(value: Any) -> str:
    """Text from what SQLite returns for it."""
    return value if isinstance(value, str) else UNREADABLE


def as_number(value: Any) -> int:
    """A whole number from what SQLite returns for it."""
    return value if isinstance(value, int) else NO_NUMBER


def as_bytes(value: Any) -> bytes:
    """Bytes from what SQLite returns for them; b"" for anything else."""
    return value if isinstance(value, bytes) else b""


def as_flag(value: Any) -> Any:
    """True or False from the number that SQLite returns for it."""
    return value if value is None else bool(value) if value in (0, 1) else UNREADABLE


def as_moment(value: Any) -> datetime | None:
    """An instant from microseconds since 1970; EPOCH for what is no such number."""
    try:
        return None if value is None else EPOCH + value * MICROSECOND
    except (TypeError, ValueError, OverflowError):
        return EPOCH


def as_microseconds(value: datetime | None) -> int | None:
    """An aware instant as microseconds since 1970; a naive one raises TypeError."""
    return None if value is None else (value - EPOCH) // MICROSECOND


class Flag(TypeDecorator[bool]):
    """True or false. Anything else that others wrote is neither, while SQLAlchemy's Boolean would take it for true."""

    impl = Boolean
    cache_ok = True
    # Without bool, `is_(True)` would become a bound value, which PostgreSQL does not take after IS.
    coerce_to_is_types = (type(None), bool)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any] | None:
        """Read it; PostgreSQL returns True or False already."""
        return None if dialect.supports_native_boolean else as_flag


class Moment(TypeDecorator[datetime]):
    """An instant: an aware datetime outside, whole microseconds since 1970 (UTC) inside."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """Write an aware datetime; a naive one raises TypeError, as its instant is unknown."""
        return as_microseconds(value)

    def bind_processor(self, dialect: Dialect) -> Callable[[datetime | None], int | None]:
        """The same without SQLAlchemy's wrapper, as it runs for each value of each row."""
        return as_microseconds

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        """Read it back in UTC."""
        return as_moment(value)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], datetime | None]:
        """The same without SQLAlchemy's wrapper."""
        return as_moment


class Json(TypeDecorator[Any]):
    """Lists and objects. Both drivers return them as text, so that a row can be compared with its earlier state."""

    impl = JSON
    cache_ok = True

    def process_result_value(self, value: Any | None, dialect: Dialect) -> Any | None:
        """Parse the text that PostgreSQL's driver returns (see engine/connect.py); SQLite's is parsed already."""
        return as_json(value) if isinstance(value, str) else value


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def numbered(name: str, *columns: Any) -> Table:
    """A table whose ids are never used twice, not even after a delete (SQLite would, unasked)."""
    return Table(name, metadata, *columns, sqlite_autoincrement=True)


def id_column() -> Column[int]:
    """The number of a row."""
    return Column("id", Integer, primary_key=True)


def seal_column() -> Column[bytes]:
    """A code that proves that a row is as Keyrack wrote it, see store/sealing/seals.py; empty in older rows."""
    return Column("seal", LargeBinary(32))


def receipt_column() -> Column[bytes]:
    """A code that proves that a host acknowledged a row, see store/sealing/receipts.py; empty before it has."""
    return Column("receipt", LargeBinary(160))


def referring(target: str, *, nullable: bool = False, cascade: bool = True) -> ForeignKey:
    """A reference to another table's id: with that row this one is deleted or, unless `cascade`, the column emptied."""
    return ForeignKey(f"{target}.id", ondelete="CASCADE" if cascade else "SET NULL")


def index_where(name: str, *columns: str, condition: str) -> Index:
    """An index of the few rows that meet a condition.

    Migrations make it on both databases. Here the condition is given for SQLite alone: with `postgresql_where`
    SQLAlchemy would load all of PostgreSQL's dialect, which takes a command on SQLite too long.
    """
    return Index(name, *columns, sqlite_where=text(condition))
