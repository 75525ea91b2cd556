"""The database as everything above sees it: read, write, listen; must know no table but the changes."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.engine import URL

from keyrack.store import changes
from keyrack.store.changes import announce
from keyrack.store.connect import (
    POOL_WAIT_SECONDS,
    READERS,
    WRITERS,
    DatabaseUnavailable,
    Dialect,
    is_conflict,
    is_unavailable,
    parse_url,
    postgresql_connection,
    postgresql_engine,
    sqlite_engine,
    unavailable,
)
from keyrack.store.sqlite_writer import SqliteWriter
from keyrack.store.turnstile import Turnstile
from keyrack.store.wakeup import Bell, Ear

__all__ = ["Database", "DatabaseUnavailable", "announce", "take_turn"]

T = TypeVar("T")
Question = Callable[[Connection], T]
Listener = Callable[[frozenset[int]], None]

log = logging.getLogger(__name__)

CONFLICT_ATTEMPTS = 12
"""How often PostgreSQL may undo a command for the sake of another before the caller hears of it."""
CONFLICT_PAUSE_SECONDS = 0.002
"""The first pause on average; it doubles each time, up to 50 times as long."""

_TURN = 0x6B6579  # keeps our advisory locks apart from those of others in the same database


class Database:
    """One database, open. All methods may be called from any thread; none from an event loop's own."""

    def __init__(self, url: URL, dialect: Dialect) -> None:
        self.dialect: Dialect = dialect
        self._url = url
        self._lock = threading.Lock()
        self._listeners: tuple[Listener, ...] = ()
        self._writer: SqliteWriter | None = None
        self._bell: Bell | None = None
        self._ear: Ear | None = None
        self._closed = False
        # A queue each, so that writes that wait for a row cannot keep reads from going on.
        self._reading = Turnstile(READERS, POOL_WAIT_SECONDS)
        self._writing = Turnstile(WRITERS, POOL_WAIT_SECONDS)
        if dialect == "sqlite":
            self._engine = sqlite_engine(url, writer=True)
            self._reader = sqlite_engine(url, writer=False)
            self._writer = SqliteWriter(self._engine, self._deliver)
        else:
            self._engine = postgresql_engine(url, writer=True)
            self._reader = postgresql_engine(url, writer=False)
            self._bell = Bell(lambda: postgresql_connection(url))

    @classmethod
    def open(cls, url: str) -> Database:
        """A database by its address (see connect.parse_url, ValueError included); connects to nothing yet."""
        dialect, parsed = parse_url(url)
        return cls(parsed, dialect)

    def read(self, question: Question[T]) -> T:
        """Ask in one read transaction: all of it sees the same instant, and it cannot write.

        The question may be asked a second time if the connection broke. Raises DatabaseUnavailable.
        """
        self._check_open()
        with self._reading:
            return _answer(lambda: _ask(self._reader, question), again=True)

    def write(self, command: Question[T]) -> T:
        """Run a command in one transaction; returns its result once the commit is on the disk.

        Whatever the command raises reaches the caller, and then nothing of it stays. The command must do
        nothing but use the connection: it runs again when PostgreSQL undid it for the sake of another one.
        It neither commits nor rolls back, and starts no other write. To survive an expected error, such as
        a duplicate, it uses ``with conn.begin_nested()``. Raises DatabaseUnavailable; if the connection
        broke during the commit itself, the change may have been made after all.
        """
        self._check_open()
        if self._writer is not None:
            writer = self._writer
            return _answer(lambda: writer.run(command), again=False)  # type: ignore[no-any-return]
        return self._write_to_postgresql(command)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Have listener called with the ids of servers that changed, after each commit, by whichever process.

        It is called in one of our threads and must return at once. Changes close in time come together; one
        may come twice; one may be lost for good when its process dies, so who waits also looks now and then.
        Returns the function that ends this. Raises DatabaseUnavailable on SQLite only.
        """
        self._check_open()
        with self._lock:
            self._listeners += (listener,)
            if self._writer is not None:
                writer = self._writer
                _answer(writer.watch, again=False)
            elif self._ear is None:
                url = self._url
                self._ear = Ear(lambda: postgresql_connection(url), self._deliver)
                self._ear.start()

        def stop() -> None:
            with self._lock:
                self._listeners = tuple(other for other in self._listeners if other is not listener)

        return stop

    def close(self) -> None:
        """Finish the writes under way and let go of every thread and connection. Twice is once."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        if self._writer is not None:
            self._writer.close()
        if self._ear is not None:
            self._ear.close()
        if self._bell is not None:
            self._bell.close()
        self._reader.dispose()
        self._engine.dispose()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("The database is closed.")

    def _deliver(self, server_ids: frozenset[int]) -> None:
        for listener in self._listeners:
            try:
                listener(server_ids)
            except Exception:
                log.exception("A listener failed; the others are told all the same.")

    def _write_to_postgresql(self, command: Question[T]) -> T:
        attempt = 0
        while True:
            attempt += 1
            try:
                with self._writing:
                    result, recorded = _answer(lambda: _command(self._engine, command), again=True)
                break
            except Exception as error:
                if not is_conflict(error) or attempt == CONFLICT_ATTEMPTS:
                    raise
            time.sleep(CONFLICT_PAUSE_SECONDS * min(2 ** (attempt - 1), 50) * random.uniform(0, 2))  # noqa: S311
        if recorded:
            if self._ear is not None:
                self._ear.known(recorded)
            if self._bell is not None:
                self._bell.ring()
            self._deliver(frozenset(recorded))
        return result


def take_turn(conn: Connection, workspace_id: int) -> None:
    """Inside a write: until its end, no other write that took the turn of this workspace goes on.

    A command that decides from what it reads ("nothing else on this host lets the key in") takes the turn
    first. On SQLite commands run one after another anyhow. On PostgreSQL they run side by side, and two
    that each see the other's key still in force would both leave it unrevoked. (Isolation level
    SERIALIZABLE prevents that too: under load it undid four commands out of five.)
    """
    if conn.dialect.name == "postgresql":
        conn.exec_driver_sql("SELECT pg_advisory_xact_lock(%s, %s)", (_TURN, workspace_id))


def _ask(engine: Engine, question: Question[T]) -> T:
    with engine.connect() as conn, conn.begin():
        return question(conn)


class _CommitInDoubt(Exception):
    """The connection broke while the commit was under way."""


def _command(engine: Engine, command: Question[T]) -> tuple[T, dict[int, int]]:
    """One attempt at a command on PostgreSQL: its result and the announcements it recorded."""
    with engine.connect() as conn:
        transaction = conn.begin()
        changes.begin_announcing(conn)
        try:
            result = command(conn)
            announced = changes.end_announcing(conn)
            recorded = changes.record_on_postgresql(conn, announced) if announced else {}
            if conn.get_transaction() is not transaction:
                raise RuntimeError("A command must not commit or roll back by itself.")
        except BaseException:
            if conn.get_transaction() is transaction:
                transaction.rollback()
            raise
        finally:
            changes.end_announcing(conn)
        try:
            transaction.commit()
        except Exception as error:
            if is_unavailable(error):
                raise _CommitInDoubt from error
            raise
    return result, recorded


def _answer(ask: Callable[[], T], *, again: bool) -> T:
    """Ask, once more if the connection turns out to be dead, and put "unavailable" into our own words."""
    try:
        return ask()
    except _CommitInDoubt as error:
        raise unavailable(error.__cause__ or error) from error
    except Exception as error:
        if not is_unavailable(error):
            raise
        if not (again and getattr(error, "connection_invalidated", False)):
            raise unavailable(error) from error
    # The pool has thrown away all connections of that age, so this one is new.
    return _answer(ask, again=False)
