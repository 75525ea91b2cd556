"""SQL that differs between the two databases; must know no table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects.sqlite import insert as sqlite_insert


def dialect_insert(connection: Connection, table: Table) -> Any:
    """An insert that has on_conflict_do_nothing() and on_conflict_do_update(), for rows that are there already."""
    return insert_of(connection.dialect.name)(table)


def insert_of(dialect: str) -> Callable[[Table], Any]:
    """The same for a database by its dialect's name."""
    if dialect == "postgresql":
        # Imported only here, as it takes as long as a whole command on SQLite.
        from sqlalchemy.dialects.postgresql import insert as postgresql_insert

        return postgresql_insert
    return sqlite_insert
