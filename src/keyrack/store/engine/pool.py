"""A connection pool, first come, first served; must not know what connections are used for."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine

from keyrack.store.engine import fibers
from keyrack.store.engine.connect import DatabaseUnavailable, is_unavailable


class _Waiter:
    """A thread or fiber that waits, and what it is handed: a connection, or None with which it opens one itself."""

    __slots__ = ("came", "conn", "era")

    def __init__(self) -> None:
        self.came = fibers.signal()
        self.conn: Connection | None = None
        self.era = 0


class Pool:
    """A bounded number of connections, opened when first needed.

    SQLAlchemy's own pool lets a thread that has just finished overtake those that wait: with 32 threads and
    16 connections some waited as long as the load lasted. It also makes a new Connection
    object for each use, which takes as long again as a short read from SQLite.
    """

    def __init__(self, engine: Engine, places: int, patience: float) -> None:
        """places: connections at most; patience: seconds a thread waits before it is turned away."""
        self._engine = engine
        self._patience = patience
        self._mutex = threading.Lock()
        self._waiting: deque[_Waiter] = deque()
        self._free: list[tuple[Connection | None, int]] = [(None, 0)] * places
        self._era = 0
        self._closed = False

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection outside of any transaction. Raises DatabaseUnavailable when none becomes free."""
        conn, era = self._take()
        try:
            if conn is not None and era != self._era:
                _let_go(conn)
                conn = None
            if conn is None:
                era = self._era
                conn = fibers.run_in_thread(self._engine.connect)
            yield conn
        except BaseException as error:
            broken = not isinstance(error, Exception) or is_unavailable(error)
            if conn is not None and (broken or conn.invalidated or conn.get_transaction() is not None):
                _let_go(conn)
                conn = None
                # A connection seldom breaks alone: those that were opened before now are replaced as well.
                self._era += 1
            raise
        finally:
            self._give_back(conn, era)

    @property
    def has_free(self) -> bool:
        """Whether a connection could be taken without waiting."""
        return bool(self._free)

    def close(self) -> None:
        """Close the free connections now, and the others as soon as they are given back."""
        with self._mutex:
            self._closed = True
            free, self._free = self._free, [(None, 0)] * len(self._free)
        for conn, _ in free:
            if conn is not None:
                _let_go(conn)

    def _take(self) -> tuple[Connection | None, int]:
        with self._mutex:
            if self._free:
                return self._free.pop()
            waiter = _Waiter()
            self._waiting.append(waiter)
        if not waiter.came.acquire(timeout=self._patience):
            with self._mutex:
                if waiter in self._waiting:
                    self._waiting.remove(waiter)
                    raise DatabaseUnavailable("The database has too much to do at the moment. Try again later.")
            # Else it was handed over at the last moment.
        return waiter.conn, waiter.era

    def _give_back(self, conn: Connection | None, era: int) -> None:
        if self._closed and conn is not None:
            _let_go(conn)
            conn = None
        with self._mutex:
            if self._waiting:
                waiter = self._waiting.popleft()
                waiter.conn, waiter.era = conn, era
                waiter.came.release()
            elif conn is None:
                self._free.insert(0, (None, era))  # taken last: open connections come first
            else:
                self._free.append((conn, era))


def _let_go(conn: Connection) -> None:
    """Close a connection, whatever state it is in."""
    conn.invalidate()
    conn.close()
