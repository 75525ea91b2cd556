"""Runs the text of statements on the driver's connection, inside the transaction that SQLAlchemy has open on it; must
know no table and build no statement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from keyrack.store.engine.altered import WRITE_LOST
from keyrack.store.engine.connect import DatabaseAltered

listeners: list[Callable[[str, Any], object]] = []
"""Each is called with a statement and its values before it runs: tests count statements, and look at their plans.

It belongs to the module and to no database, as statements do, which are made when modules are imported.
"""


def execute(
    connection: Connection, sql: str, values: Any, *, many: bool = False, ahead: bool = False, one: bool = False
) -> Any:
    """Run a statement on the driver; its errors are raised as SQLAlchemy's, so that callers catch one kind."""
    if not connection.in_transaction():
        raise RuntimeError("A prepared statement runs inside a transaction.")
    for listener in listeners:
        listener(sql, values)
    return _driven(connection, sql, values, many=many, ahead=ahead, one=one)


def _driven(
    connection: Connection, sql: str, values: Any, *, many: bool = False, ahead: bool = False, one: bool = False
) -> Any:
    raw: Any = (
        connection.connection.dbapi_connection
    )  # the driver's own connection; a shorter way than driver_connection
    try:
        if connection.dialect.name == "postgresql":
            if not many:
                return raw.enqueue(sql, values) if ahead else raw.ask(sql, values)
            for each in values:
                raw.enqueue(sql, each)
            return None
        if many and len(values) > 1:
            done = raw.cursor().executemany(sql, values)
        else:
            done = raw.execute(sql, values[0] if many else values)
        if one and done.rowcount != (len(values) if many else 1):
            raise write_lost()
        return done
    except connection.dialect.loaded_dbapi.Error as error:
        raise as_raised_by_sqlalchemy(connection, error) from error


def as_raised_by_sqlalchemy(connection: Connection, error: Any) -> Exception:
    """The SQLAlchemy error for one of the driver; a connection that broke is invalidated."""
    dialect = connection.dialect
    broken = dialect.is_disconnect(error, connection.connection, None)
    if broken:
        connection.invalidate(error)
    raised: Exception = DBAPIError.instance(
        None,
        None,
        error,
        dialect.loaded_dbapi.Error,
        hide_parameters=True,
        connection_invalidated=broken,
        dialect=dialect,
    )
    return raised


@contextmanager
def savepoint(connection: Connection) -> Iterator[None]:
    """A block that is undone if it ends by an error. SQLAlchemy's begin_nested() does the same, but takes longer than
    many a whole command. Savepoints may be nested.
    """
    _driven(connection, "SAVEPOINT nested", ())
    try:
        yield
        _driven(connection, "RELEASE SAVEPOINT nested", ())
    except BaseException:
        # Where the connection broke or the transaction ended, there is nothing left to undo, and that error is raised.
        if not connection.invalidated:
            with suppress(DBAPIError):
                _driven(connection, "ROLLBACK TO SAVEPOINT nested", ())
                _driven(connection, "RELEASE SAVEPOINT nested", ())
        raise


def send(connection: Connection) -> None:
    """Send what was queued so far to PostgreSQL, without waiting."""
    raw: Any = connection.connection.dbapi_connection
    raw.send()


def statements_that_write(connection: Connection) -> int:
    """How many statements that may write were sent to PostgreSQL on this connection."""
    raw: Any = connection.connection.dbapi_connection
    return int(raw.written)


def write_lost() -> DatabaseAltered:
    """The error for a write that the database accepted and did not make."""
    return DatabaseAltered(WRITE_LOST)
