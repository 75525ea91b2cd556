"""What each database says in its own dialect of SQL; must know no table."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert


def dialect_insert(connection: Connection, table: Table) -> Any:
    """An insert that can say what to do where the row is there already: `on_conflict_do_nothing` or `…_do_update`."""
    return (postgresql_insert if connection.dialect.name == "postgresql" else sqlite_insert)(table)
