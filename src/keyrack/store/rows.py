"""How rows become records and lists become pages; must ask nothing of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, Select, Table, false, func, insert, literal, select

from keyrack.model import Page
from keyrack.store import sealed

T = TypeVar("T")

LONGEST_SEARCH = 4096
ONE_ROW = select(literal(1).label("one")).subquery("one_row")
"""What a question begins with that answers one row whether there is such a thing or not."""


def inserted(connection: Connection, table: Table, values: Mapping[str, Any]) -> int:
    """Insert a row, sealed where its table is, and answer its id."""
    if table.name in sealed.VOLATILE:
        return int(sealed.insert_row(connection, table, values)["id"])
    return int(connection.execute(insert(table).values(**values).returning(table.c.id)).scalar_one())


def page(
    connection: Connection,
    statement: Select[Any],
    record: Callable[[Row[Any]], T],
    *,
    offset: int,
    limit: int,
) -> Page[T]:
    """One page of an ordered statement and the count of all its rows; offset and limit in rows."""
    total = connection.execute(select(func.count()).select_from(statement.order_by(None).subquery())).scalar_one()
    rows = connection.execute(statement.offset(offset).limit(limit))
    return Page(items=tuple(record(row) for row in rows), total=total, offset=offset, limit=limit)


def contains(column: Any, text: str) -> Any:
    """A condition: the column holds the text, any case; % and _ in the text stand for themselves.

    Nothing that is searched is longer than LONGEST_SEARCH, and SQLite refuses patterns beyond 50,000 bytes.
    """
    if len(text) > LONGEST_SEARCH:
        return false()
    return func.lower(column).contains(text.lower(), autoescape=True)
