"""Whole tables of sealed rows: sealed for the first time, read from and copied out of another database; must decide
about nobody.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Boolean, Column, Connection, Table
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from keyrack.store.sealed import AT_ONCE, SEAL, TABLES, count, every, seals_of, set_seals
from keyrack.store.tables import EPOCH, MICROSECOND, Json, Moment


def copy_new(connection: Connection, table: Table, row: Mapping[str, Any]) -> None:
    """Insert a row of another copy of this database with the seal it has there, unless there is one with its key."""
    statement = sqlite_insert(table).values(**row).on_conflict_do_nothing().returning(table.c.seal)
    if connection.execute(statement).first() is not None:
        count(connection, table, None, row)


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


def seal_all(
    connection: Connection, holds_as_before: Callable[[Table, Mapping[str, Any]], bool], told: Callable[[str], None]
) -> int:
    """Seal every row that was written before there were seals; how many.

    holds_as_before: whether a row that had a seal of the former kind is as Keyrack wrote it; told: hears of progress.
    """
    seals, total = seals_of(connection), 0
    for table in TABLES:
        done: list[dict[str, Any]] = []
        of_table = 0
        for row in every(connection, table):
            try:
                if holds_as_before(table, row):
                    done.append({**row, SEAL: seals.of(table, row)})
            except (TypeError, ValueError, OverflowError):
                continue
            if len(done) == AT_ONCE:
                set_seals(connection, table, done)
                of_table += len(done)
                done = []
                told(f"sealed {of_table} rows of {table.name}")
        set_seals(connection, table, done)
        total += of_table + len(done)
    return total
