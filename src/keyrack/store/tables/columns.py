"""What the tables are made of, the same on both databases: kinds of columns, ids, seals; must name no table."""

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
"""Others alone write what a column cannot hold, which SQLite lets them. It is read as something that no row of ours
says, so that the seal of this row does not hold, and all other rows are read as ever.
"""
NO_NUMBER = -1
"""The same in a column of numbers."""


def as_json(text: Any) -> Any:
    """What SQLite hands over for a list or an object."""
    if text == "{}":
        return {}  # as most are
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return {UNREADABLE: True}


def as_text(value: Any) -> str:
    """What SQLite hands over for text."""
    return value if isinstance(value, str) else UNREADABLE


def as_number(value: Any) -> int:
    """What SQLite hands over for a whole number."""
    return value if isinstance(value, int) else NO_NUMBER


def as_bytes(value: Any) -> bytes:
    """What SQLite hands over for bytes."""
    return value if isinstance(value, bytes) else b""


def as_flag(value: Any) -> Any:
    """What SQLite hands over for true or false: a number."""
    return value if value is None else bool(value) if value in (0, 1) else UNREADABLE


def as_moment(value: Any) -> datetime | None:
    """What a database hands over for an instant: microseconds since 1970."""
    try:
        return None if value is None else EPOCH + value * MICROSECOND
    except (TypeError, ValueError, OverflowError):
        return EPOCH


def as_microseconds(value: datetime | None) -> int | None:
    """What a database is handed for an instant: microseconds since 1970. A naive one raises: its instant is unknown."""
    return None if value is None else (value - EPOCH) // MICROSECOND


class Flag(TypeDecorator[bool]):
    """True or false. What others write there instead counts as neither, where SQLAlchemy would take it for true."""

    impl = Boolean
    cache_ok = True
    # Else `is_(True)` became a value that is handed over, which PostgreSQL does not take after IS.
    coerce_to_is_types = (type(None), bool)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any] | None:
        """Read it; PostgreSQL hands over nothing else."""
        return None if dialect.supports_native_boolean else as_flag


class Moment(TypeDecorator[datetime]):
    """An instant: an aware datetime outside, whole microseconds since 1970 (UTC) inside."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """Write an aware datetime; a naive one raises, because its instant is unknown."""
        return as_microseconds(value)

    def bind_processor(self, dialect: Dialect) -> Callable[[datetime | None], int | None]:
        """The same without a step between: it is done for each value of each row."""
        return as_microseconds

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        """Read it back in UTC."""
        return as_moment(value)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], datetime | None]:
        """The same without a step between."""
        return as_moment


class Json(TypeDecorator[Any]):
    """Lists and objects. Both databases hand them over as text, so that a row can be compared with what it was."""

    impl = JSON
    cache_ok = True

    def process_result_value(self, value: Any | None, dialect: Dialect) -> Any | None:
        """Read what PostgreSQL handed over as it stands (see engine/connect.py); SQLite's is read already."""
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
    """What shows that a row is as Keyrack wrote it, see store/sealing/seals.py; empty in older rows."""
    return Column("seal", LargeBinary(32))


def receipt_column() -> Column[bytes]:
    """What shows that a host acknowledged it, see store/sealing/receipts.py; empty where none has."""
    return Column("receipt", LargeBinary(160))


def referring(target: str, *, nullable: bool = False, cascade: bool = True) -> ForeignKey:
    """The id of a row of another table, gone with that row, or emptied where `cascade` is false."""
    return ForeignKey(f"{target}.id", ondelete="CASCADE" if cascade else "SET NULL")


def index_where(name: str, *columns: str, condition: str) -> Index:
    """An index of the few rows that meet a condition.

    Migrations make it so on both databases. Here it is said for SQLite alone: SQLAlchemy loads all of PostgreSQL's
    dialect as soon as a table has a word for it, and a command on SQLite would wait for that.
    """
    return Index(name, *columns, sqlite_where=text(condition))
