"""Non-blocking reads of SQLite, for a thread that must never wait, such as an event loop's; must know no table.

To hand a question over to another thread and its answer back takes ten times as long as SQLite takes to answer it. Here
the calling thread asks by itself: on a connection that nobody else uses, within a bounded number of SQLite's steps, and
without waiting for any lock. Where that is not enough it gets WouldBlock, and a thread that may wait asks again.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from keyrack.store.engine.connect import is_damage
from keyrack.store.engine.quick import as_quick

T = TypeVar("T")

STEPS = 10_000
"""After so many of its steps (instructions of its virtual machine) SQLite calls back, so that they are counted."""
MAX_CHECKS = 20
"""Calls back within one block, after which SQLite stops; all these steps together take a few milliseconds."""
MAX_ROWS = 50
"""Rows that a command on an event loop may write: each takes some time besides SQLite's steps."""
_SHORT = "keyrack short"
_UNCHANGED = "keyrack unchanged answers"


class WouldBlock(Exception):
    """It may take too long, or has to wait or write: nothing was changed; run it again on a thread that may wait."""


class TooSlow(WouldBlock):
    """The command took too long for an event loop, and would do so again."""


def keep_short(connection: Connection, short: bool) -> None:
    """Set whether commands on this connection are stopped (see expect) before they write many rows."""
    connection.info[_SHORT] = short


def expect(connection: Connection, rows: int) -> None:
    """To be called before so many rows are written together. Raises TooSlow where a command must be short."""
    if rows > MAX_ROWS and connection.info.get(_SHORT):
        raise TooSlow


class Answers:
    """A cache that is emptied when anybody writes to the database; records: how many it holds, all together."""

    def __init__(self) -> None:
        self.held: dict[Any, Any] = {}
        self.records = 0

    def clear(self) -> None:
        """Empty the cache."""
        self.held.clear()
        self.records = 0


def unchanged_answers(connection: Connection) -> Answers | None:
    """The cache of this connection; None on a connection that does not notice when others write."""
    answers: Answers | None = connection.info.get(_UNCHANGED)
    return answers


class NonblockingReader:
    """One connection for one thread at a time. All questions of a block see one snapshot; so do all blocks of one round
    of an event loop.
    """

    def __init__(self, engine: Engine) -> None:
        """engine: whose connections read SQLite, and cannot write."""
        self._engine = engine
        self._used = threading.Lock()
        self._thread = 0
        self._conn: Connection | None = None
        self._raw: sqlite3.Connection | None = None
        self._in_snapshot = self._ends_later = False
        self._answers = Answers()
        self._version = 0
        self._checks = 0
        self._wanted = False
        self._closed = False

    @property
    def is_here(self) -> bool:
        """Whether the calling thread is inside a block."""
        return self._thread == threading.get_ident()

    def begin(self, *, anew: bool = False) -> None:
        """Begin a block, inside which the calling thread asks by read(), and which end() ends. anew: with a new
        snapshot. Raises WouldBlock; then no block has begun.
        """
        if not self._used.acquire(blocking=False):
            raise WouldBlock("another thread asks")
        if self._conn is None or self._closed:
            self._wanted = not self._closed
            self._used.release()
            raise WouldBlock("there is no connection yet")
        self._thread = threading.get_ident()
        self._checks = 0
        if anew:
            self._end()

    def end(self, later: Callable[[Callable[[], None]], object] | None = None) -> None:
        """End a block. later: an event loop's call_soon; then the snapshot stays open for the other blocks of the
        loop's round, and is ended after it.
        """
        self._thread = 0
        try:
            if later is None:
                self._end()
            elif self._in_snapshot and not self._ends_later:
                self._ends_later = True
                later(self.end_round)
        finally:
            self._used.release()

    def end_round(self) -> None:
        """End the snapshot, so that later questions see what was committed meanwhile."""
        self._ends_later = False
        # Another thread that is inside a block ends the snapshot itself; the loop waits for nobody.
        if self._used.acquire(blocking=False):
            try:
                self._end()
            finally:
                self._used.release()

    def read(self, question: Callable[[Connection], T]) -> T:
        """Ask inside a block. Raises WouldBlock for every error of the database."""
        conn, raw = self._conn, self._raw
        if conn is None or raw is None:
            raise WouldBlock("the connection was given up")
        try:
            if not self._in_snapshot:
                raw.execute("BEGIN")
                self._in_snapshot = True
                # The number changes with each commit of another connection, and this one never writes. Being the first
                # read, it also fixes the snapshot.
                version = raw.execute("PRAGMA data_version").fetchone()[0]
                if version != self._version:
                    self._answers.clear()
                    self._version = version
            return question(conn)
        except (SQLAlchemyError, sqlite3.Error) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            if is_damage(cause):
                self._closed = True  # the connection stays open: to close it may write
            elif getattr(cause, "sqlite_errorcode", None) != sqlite3.SQLITE_INTERRUPT:
                self._drop()
            else:
                raise TooSlow from error
            # A thread that may wait asks again, and raises the error in words.
            raise WouldBlock(str(cause)) from error

    def prepare(self) -> None:
        """Open the connection if begin() wanted it and there was none; called by a thread that may wait."""
        if self._wanted:
            self.open()

    def open(self) -> None:
        """Open the connection if there is none and no block is open; called by a thread that may wait."""
        if not self._used.acquire(blocking=False):
            return
        try:
            if self._conn is not None or self._closed:
                return
            conn = self._engine.connect()
            # SQLAlchemy's transaction stays open for good; SQLite's own transactions are begun and ended here, past
            # SQLAlchemy, in a tenth of the time.
            conn.begin()
            raw = cast(sqlite3.Connection, conn.connection.driver_connection)
            raw.execute("COMMIT")
            raw.execute("PRAGMA busy_timeout = 0")
            raw.set_progress_handler(self._count_steps, STEPS)
            self._answers.clear()
            conn.info[_UNCHANGED] = self._answers
            self._conn, self._raw, self._wanted = as_quick(conn), raw, False
        finally:
            self._used.release()

    def close(self) -> None:
        """Wait for an open block to end, and close the connection."""
        with self._used:
            self._closed = True
            self._drop()

    def _count_steps(self) -> int:
        self._checks += 1
        return int(self._checks > MAX_CHECKS)

    def _end(self) -> None:
        if not self._in_snapshot:
            return
        self._in_snapshot = False
        if self._raw is not None:
            try:
                self._raw.execute("COMMIT")
            except sqlite3.Error:
                self._drop()

    def _drop(self) -> None:
        conn, self._conn, self._raw, self._in_snapshot = self._conn, None, None, False
        if conn is not None:
            with suppress(Exception):
                conn.invalidate()
                conn.close()
