"""Short questions to SQLite by a thread that must not be kept waiting, such as an event loop's; must know no table.

To hand a question over to another thread and its answer back takes ten times as long as SQLite takes to answer it. Here
it is answered at once or not at all: on a connection that nobody else has, within a bounded number of SQLite's steps,
waiting for no lock. Whoever is told NotAtOnce asks the same again on a thread that may wait.
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
"""SQLite calls back after so many of its steps (instructions of its virtual machine), to check for too many."""
MAX_CHECKS = 20
"""So many checks at most within one block; all its steps together take a few milliseconds."""


MAX_ROWS = 50
"""So many rows at most are written by a command that runs at once: each takes some time besides SQLite's steps."""
_SHORT = "keyrack short"
_UNCHANGED = "keyrack unchanged answers"


class NotAtOnce(Exception):
    """It may take longer, or needs more than reading: nothing was changed, ask again on a thread that may wait."""


class TookLonger(NotAtOnce):
    """It was tried, and took more than is done at once: it will again."""


def keep_short(connection: Connection, short: bool) -> None:
    """Have commands on this connection be stopped where they are about to write many rows, or no more."""
    connection.info[_SHORT] = short


def expect(connection: Connection, rows: int) -> None:
    """Called before so many rows are written together. Raises TookLonger where a command must be short."""
    if rows > MAX_ROWS and connection.info.get(_SHORT):
        raise TookLonger


class Answers:
    """What is kept until anybody writes to the database; records: of how many it consists, all together."""

    def __init__(self) -> None:
        self.held: dict[Any, Any] = {}
        self.records = 0

    def clear(self) -> None:
        """Keep nothing of it."""
        self.held.clear()
        self.records = 0


def unchanged_answers(connection: Connection) -> Answers | None:
    """The answers kept on this connection until anybody writes to the database; None on one that does not check."""
    answers: Answers | None = connection.info.get(_UNCHANGED)
    return answers


class AtOnce:
    """One connection for one thread at a time, which reads one snapshot from a block's first question to its last, or
    to the end of the event loop's round.
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
        """Begin a block, which end() ends, and within which the calling thread asks by read(). anew: what it sees is an
        instant of its own. Raises NotAtOnce, and then there is none to be ended.
        """
        if not self._used.acquire(blocking=False):
            raise NotAtOnce("another thread asks")
        if self._conn is None or self._closed:
            self._wanted = not self._closed
            self._used.release()
            raise NotAtOnce("there is no connection yet")
        self._thread = threading.get_ident()
        self._checks = 0
        if anew:
            self._end()

    def end(self, later: Callable[[Callable[[], None]], object] | None = None) -> None:
        """End a block. later: has a function called once the event loop's round is over; the blocks of that round see
        the same instant.
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
        """Let go of the instant that blocks saw: whatever is asked from now on sees what was committed until then."""
        self._ends_later = False
        # Who else is within a block ends what it sees itself; the loop waits for nobody.
        if self._used.acquire(blocking=False):
            try:
                self._end()
            finally:
                self._used.release()

    def read(self, question: Callable[[Connection], T]) -> T:
        """Ask within a block. Raises NotAtOnce for whatever is the matter with the database."""
        conn, raw = self._conn, self._raw
        if conn is None or raw is None:
            raise NotAtOnce("the connection was given up")
        try:
            if not self._in_snapshot:
                raw.execute("BEGIN")
                self._in_snapshot = True
                # It is another one after each commit of another connection, and this one never writes. As the first
                # thing that is read it makes the snapshot.
                version = raw.execute("PRAGMA data_version").fetchone()[0]
                if version != self._version:
                    self._answers.clear()
                    self._version = version
            return question(conn)
        except (SQLAlchemyError, sqlite3.Error) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            if is_damage(cause):
                self._closed = True  # and the connection stays as it is: to close one may write
            elif getattr(cause, "sqlite_errorcode", None) != sqlite3.SQLITE_INTERRUPT:
                self._drop()
            else:
                raise TookLonger from error
            # Asked again, with patience, whoever may wait finds the words for it.
            raise NotAtOnce(str(cause)) from error

    def prepare(self) -> None:
        """Open the connection where one was wanted; to be called by a thread that may wait."""
        if self._wanted:
            self.open()

    def open(self) -> None:
        """Open the connection, where there is none and nobody asks; to be called by a thread that may wait."""
        if not self._used.acquire(blocking=False):
            return
        try:
            if self._conn is not None or self._closed:
                return
            conn = self._engine.connect()
            # SQLAlchemy's transaction stays open for good; SQLite's own begin and end here, beside it, for a tenth of
            # the time.
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
        """Let go of the connection, after the block that may be under way."""
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
