"""Sealed tables as a whole: read through, sealed the first time, taken from another copy; must decide about no row."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sqlalchemy import Boolean, Column, Connection, Table, select, tuple_

from keyrack.store import access_tree, sealed
from keyrack.store.columns import EPOCH, MICROSECOND, Json, Moment

AT_ONCE = 10_000
MOST_NAMED = 500


def every(connection: Connection, table: Table, *where: Any) -> Iterator[Mapping[str, Any]]:
    """All rows of a table that meet the conditions, in the order of their keys, so many at a time."""
    named = list(table.primary_key)
    further: list[Any] = []
    while True:
        statement = select(table).where(*where, *further).order_by(*named).limit(AT_ONCE)
        rows = [dict(row) for row in connection.execute(statement).mappings()]
        yield from rows
        if len(rows) < AT_ONCE:
            return
        last = [rows[-1][column.name] for column in named]
        further = [tuple_(*named) > tuple_(*last) if len(named) > 1 else named[0] > last[0]]


def seal_all(
    connection: Connection, holds_as_before: Callable[[Table, Mapping[str, Any]], bool], told: Callable[[str], None]
) -> int:
    """Seal every row that was written before there were seals; how many.

    holds_as_before: whether a row that had a seal of the former kind is as Keyrack wrote it; told: hears of progress.
    """
    seals, count = sealed.seals_of(connection), 0
    for table in sealed.TABLES:
        done: list[dict[str, Any]] = []
        of_table = 0
        for row in every(connection, table):
            try:
                if holds_as_before(table, row):
                    done.append({**row, sealed.SEAL: seals.of(table, row)})
            except (TypeError, ValueError, OverflowError):
                continue
            if len(done) == AT_ONCE:
                sealed.set_seals(connection, table, done)
                of_table += len(done)
                done = []
                told(f"sealed {of_table} rows of {table.name}")
        sealed.set_seals(connection, table, done)
        count += of_table + len(done)
    return count


def count_all(connection: Connection, *, since: int = 0) -> int:
    """Count anew all rows that hold as they stand; how many. since: how often the counts were changed before."""
    access_tree.start(connection, since)
    seals, rows = sealed.seals_of(connection), 0
    for table in sealed.TABLES:
        if table.name not in access_tree.TREES:
            continue
        for row in every(connection, table):
            if table.name == "servers" or seals.holds(table, row):
                access_tree.note(connection, table, None, row)
                rows += 1
            if rows % AT_ONCE == 0:
                access_tree.settle(connection)
        access_tree.settle(connection)
    return rows


def missing(connection: Connection) -> Iterator[tuple[Table, int]]:
    """What was counted and is not there: the table, and the id of the row or of what its rows belonged to."""
    for table in sealed.TABLES:
        if table.name not in access_tree.TREES:
            continue
        column = table.c[access_tree.TREES[table.name][1]]
        held = list(access_tree.places_held(connection, table))
        for start in range(0, len(held), MOST_NAMED):
            some = held[start : start + MOST_NAMED]
            there = set(connection.execute(select(column).where(column.in_(some))).scalars())
            yield from ((table, index) for index in some if index not in there)


def typed(table: Table, raw: Mapping[str, Any]) -> dict[str, Any]:
    """A row that was read from an SQLite file past SQLAlchemy, as it would have been read by it."""
    return {column.name: _typed(column, raw[column.name]) for column in table.c}


def _typed(column: Column[Any], value: Any) -> Any:
    if value is None:
        return None
    if isinstance(column.type, Moment):
        return EPOCH + value * MICROSECOND
    if isinstance(column.type, Json):
        return json.loads(value)
    return bool(value) if isinstance(column.type, Boolean) else value
