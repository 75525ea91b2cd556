"""Sends single statements that several fibers ask in the same round of the event loop to PostgreSQL together; must know
no question.

Most of a statement's cost here is system calls and wake-ups: sending it, waking the server, being woken by its answer.
The fibers of one round share that: one of them takes a connection and sends the statements of all of them. Each has a
snapshot of its own; equal statements with equal values are sent once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, NoReturn, cast

import psycopg
from sqlalchemy import Connection, Dialect

from keyrack.store.engine.connect import DatabaseUnavailable
from keyrack.store.engine.execute import as_raised_by_sqlalchemy
from keyrack.store.engine.fibers import Fiber
from keyrack.store.engine.pipeline import MoreThanOne, PipelinedConnection
from keyrack.store.engine.pool import Pool
from keyrack.store.sealing import access_tree, seals
from keyrack.store.sealing.seals import Seals

Rows = list[tuple[Any, ...]]


class SharedRows:
    """The rows of a statement, with a cursor's methods."""

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
    """Stands in for a connection while it is not known whether a question is a single statement: it can run one
    prepared statement. Everything else raises MoreThanOne.
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
        """Itself: it has the ask() of the driver's connection."""
        return self

    dbapi_connection = connection

    def in_transaction(self) -> bool:
        """Always True: its statement is its own transaction."""
        return True

    def invalidate(self, _error: BaseException) -> None:
        """Does nothing, as there is no connection of its own."""

    def ask(self, sql: str, values: Mapping[str, Any]) -> SharedRows:
        """As ask() of a PipelinedConnection; a second call raises MoreThanOne."""
        if self._spent:
            raise MoreThanOne
        self._spent = True
        return SharedRows(self._reads.ask(self._fiber, sql, values))

    def __getattr__(self, name: str) -> NoReturn:
        raise MoreThanOne


def lone_connection(reads: SharedReads, fiber: Fiber, dialect: Dialect, kept_by: Seals) -> Connection:
    """A LoneConnection of the running fiber, typed as SQLAlchemy's; kept_by: what seals its rows."""
    connection = cast(Connection, LoneConnection(reads, fiber, dialect))
    seals.attach_to_connection(connection, kept_by)
    access_tree.begin(connection, reads=True)
    return connection


class _Asked:
    """A statement, the fibers that wait for it, and its rows or error."""

    __slots__ = ("error", "fibers", "rows", "sql", "values")

    def __init__(self, sql: str, values: Mapping[str, Any]) -> None:
        self.sql, self.values = sql, values
        self.fibers: list[Fiber] = []
        self.rows: Rows = []
        self.error: Exception | None = MoreThanOne()


class SharedReads:
    """Gathers the statements of an event loop's fibers until one of them sends all."""

    def __init__(self, pool: Pool) -> None:
        """pool: of connections that cannot write."""
        self._pool = pool
        self._gathered: dict[asyncio.AbstractEventLoop, dict[Any, _Asked]] = {}

    def ask(self, fiber: Fiber, sql: str, values: Mapping[str, Any]) -> Rows:
        """The rows of a statement, for the running fiber. Raises DatabaseUnavailable, and MoreThanOne if statements of
        several fibers failed together: then each asks again by itself, and gets its own error.
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
        """Send the statements of this round, this fiber's own among them."""
        gathered = self._gathered[fiber.loop] = {name: mine}
        try:
            fiber.wait(fiber.resume)  # first let the other calls of this round ask
            with self._pool.connection() as conn:
                del self._gathered[fiber.loop]
                self._ask_all(conn, list(gathered.values()))
        except DatabaseUnavailable as error:
            for one in gathered.values():
                one.error = error
        except Exception as error:  # of several statements; each is asked again alone, and raises its own
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
    """A key that is equal for equal statements with equal values; unique where the values cannot be hashed."""
    name = (sql, *values.values())
    try:
        hash(name)
    except TypeError:
        return object()
    return name


def _until_called() -> None:
    """Arranges nothing, as the fiber that sends resumes the others."""
