"""What each database says in its own dialect of SQL; must know no table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects.sqlite import insert as sqlite_insert


def dialect_insert(connection: Connection, table: Table) -> Any:
    """An insert that can say what to do where the row is there already: `on_conflict_do_nothing` or `…_do_update`."""
    return insert_of(connection.dialect.name)(table)


def insert_of(dialect: str) -> Callable[[Table], Any]:
    """The same for a database by its dialect's name."""
    if dialect == "postgresql":
        # Loaded where it is spoken: it takes as long as all else that a command on SQLite does.
        from sqlalchemy.dialects.postgresql import insert as postgresql_insert

        return postgresql_insert
    return sqlite_insert
