"""Questions of one statement that several fibers ask at the same moment, sent to PostgreSQL together; must know no
question.

What a statement costs us is mostly the system's work: to send it, to wake the server, to be woken by its answer. Fibers
of one round of the event loop share that: one of them takes a connection and sends what all of them ask, each statement
with its own view of the database, and the very same statement once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, NoReturn, cast

import psycopg
from sqlalchemy import Connection, Dialect

from keyrack.store.engine.connect import DatabaseUnavailable
from keyrack.store.engine.fibers import Fiber
from keyrack.store.engine.pipeline import MoreThanOne, PipelinedConnection
from keyrack.store.engine.pool import Pool
from keyrack.store.engine.prepared import as_raised_by_sqlalchemy
from keyrack.store.sealing import access_tree, seals
from keyrack.store.sealing.seals import Seals

Rows = list[tuple[Any, ...]]


class SharedRows:
    """What comes of a statement, as a cursor answers it."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    @property
    def rowcount(self) -> int:
        """How many rows it found."""
        return len(self._rows)

    def fetchall(self) -> Rows:
        """All rows."""
        return list(self._rows)

    def fetchone(self) -> tuple[Any, ...] | None:
        """The first row."""
        return self._rows[0] if self._rows else None


class LoneConnection:
    """What a question sees of a connection while it is not known yet whether it is more than one statement: enough for
    one that is prepared. Whatever else it wants raises MoreThanOne.
    """

    invalidated = False

    def __init__(self, reads: SharedReads, fiber: Fiber, dialect: Dialect) -> None:
        """fiber: the one that asks."""
        self.dialect = dialect
        self.info: dict[Any, Any] = {}
        self._reads, self._fiber = reads, fiber
        self._spent = False

    @property
    def connection(self) -> LoneConnection:
        """Itself, in place of the driver's own connection, whose ask() it has."""
        return self

    dbapi_connection = connection

    def in_transaction(self) -> bool:
        """Its statement is one by itself."""
        return True

    def invalidate(self, _error: BaseException) -> None:
        """It has nothing that could be broken."""

    def ask(self, sql: str, values: Mapping[str, Any]) -> SharedRows:
        """As a PipelinedConnection, once."""
        if self._spent:
            raise MoreThanOne
        self._spent = True
        return SharedRows(self._reads.ask(self._fiber, sql, values))

    def __getattr__(self, name: str) -> NoReturn:
        raise MoreThanOne


def lone_connection(reads: SharedReads, fiber: Fiber, dialect: Dialect, kept_by: Seals) -> Connection:
    """A LoneConnection of the fiber that is running, for who asks for SQLAlchemy's; kept_by: what seals its rows."""
    connection = cast(Connection, LoneConnection(reads, fiber, dialect))
    seals.attach_to_connection(connection, kept_by)
    access_tree.begin(connection, reads=True)
    return connection


class _Asked:
    """A statement, who waits for it, and what comes of it."""

    __slots__ = ("error", "fibers", "rows", "sql", "values")

    def __init__(self, sql: str, values: Mapping[str, Any]) -> None:
        self.sql, self.values = sql, values
        self.fibers: list[Fiber] = []
        self.rows: Rows = []
        self.error: Exception | None = MoreThanOne()


class SharedReads:
    """Gathers what the fibers of an event loop ask until it is sent."""

    def __init__(self, pool: Pool) -> None:
        """pool: of connections that cannot write."""
        self._pool = pool
        self._gathered: dict[asyncio.AbstractEventLoop, dict[Any, _Asked]] = {}

    def ask(self, fiber: Fiber, sql: str, values: Mapping[str, Any]) -> Rows:
        """The rows of a statement, for the fiber that is running. Raises DatabaseUnavailable, and MoreThanOne where
        something failed for several: each asks by itself then, and hears of his own failure.
        """
        name = _name(sql, values)
        gathered = self._gathered.get(fiber.loop)
        if gathered is None:
            asked = self._lead(fiber, name, _Asked(sql, values))
        else:
            asked = gathered.setdefault(name, _Asked(sql, values))
            asked.fibers.append(fiber)
            fiber.wait(_until_called)
        if asked.error is not None:
            raise asked.error
        return asked.rows

    def _lead(self, fiber: Fiber, name: Any, mine: _Asked) -> _Asked:
        """Ask what others of this round ask too."""
        gathered = self._gathered[fiber.loop] = {name: mine}
        try:
            fiber.wait(fiber.resume)  # what came in with this call comes first
            with self._pool.connection() as conn:
                del self._gathered[fiber.loop]
                self._ask_all(conn, list(gathered.values()))
        except DatabaseUnavailable as error:
            for one in gathered.values():
                one.error = error
        except Exception as error:  # of several, each asks alone then, and raises its own
            if len(gathered) == 1:
                mine.error = error
        finally:
            if self._gathered.get(fiber.loop) is gathered:
                del self._gathered[fiber.loop]
            for one in gathered.values():
                for other in one.fibers:
                    other.resume()
        return mine

    def _ask_all(self, conn: Connection, asked: list[_Asked]) -> None:
        raw = cast(PipelinedConnection, conn.connection.driver_connection)
        try:
            results = raw.ask_together([(one.sql, one.values) for one in asked])
        except psycopg.Error as error:
            raise as_raised_by_sqlalchemy(conn, error) from error
        for one, rows in zip(asked, results, strict=True):
            one.rows, one.error = rows, None


def _name(sql: str, values: Mapping[str, Any]) -> Any:
    """The same for two statements that are the very same; an object of its own where values cannot be hashed."""
    name = (sql, *values.values())
    try:
        hash(name)
    except TypeError:
        return object()
    return name


def _until_called() -> None:
    """Nothing: whoever leads calls."""
