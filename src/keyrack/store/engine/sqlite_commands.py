"""Commands inside the transaction of the thread that writes to SQLite; must not know what they do.

A command runs in a savepoint, on the writer's thread or on another one that the connection is lent to: a turn.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from sqlalchemy import Connection

from keyrack.store import changes
from keyrack.store.changes import driver_connection
from keyrack.store.engine.altered import is_altered
from keyrack.store.engine.at_once import MOST_LOOKS, STEPS, NotAtOnce, TookLonger, keep_short
from keyrack.store.engine.connect import is_damage, is_no_text
from keyrack.store.sealing import sealed

T = TypeVar("T")
Command = Callable[[Connection], Any]

PATIENCE_SECONDS = 5.0
"""How long the writer waits for somebody to begin the turn that he asked for."""


class WaitingCommand:
    """A command and the thread that waits for its outcome."""

    __slots__ = ("_done", "command", "error", "result")

    def __init__(self, command: Command) -> None:
        self.command = command
        self.result: Any = None
        self.error: BaseException | None = None
        self._done = threading.Lock()  # a lock taken twice is the cheapest signal there is
        self._done.acquire()

    def finish(self) -> None:
        """Let the thread go on."""
        self._done.release()

    def outcome(self) -> Any:
        """What the command answered, once it is on the disk, or raised."""
        self._done.acquire()
        if self.error is None:
            return self.result
        try:
            raise self.error
        finally:
            self.error = None  # its traceback leads back here; the circle would live until the collector comes


class TurnLost(NotAtOnce):
    """The transaction ended under the commands of a turn: none of them is on the disk, nor will be."""


class Turn:
    """The writer's connection, lent to one other thread for as long as it runs commands, which must be short: SQLite
    stops where one takes more than a few milliseconds.

    Nothing that was run is on the disk before `ended` is called. All of it is undone where a command ends the
    transaction, or where the commit fails.
    """

    def __init__(self, lent: Callable[[Turn], None], ended: Callable[[Exception | None], None]) -> None:
        """lent, ended: called by the writer's thread, and must return at once: begin() it now; all that was run is on
        the disk, or is not, for this reason. Neither may hold the turn itself: the circle, with every request of the
        turn, would live until the collector comes.
        """
        self._lent, self._ended = lent, ended
        self._mutex = threading.Lock()
        self._back = threading.Lock()
        self._back.acquire()
        self._conn: Connection | None = None
        self._taken = False
        self._touched: set[int] = set()
        self._looks = 0
        self._lost: BaseException | None = None
        self.wrote = False
        """Whether a command ran in the call that is under way."""
        self.error: BaseException | None = None
        """Why nothing of it was committed, as the writer says."""

    def tell(self, callback: Callable[[Exception | None], None]) -> None:
        """Have another one told of the end too, before the first."""
        ended = self._ended

        def both(error: Exception | None) -> None:
            callback(error)
            ended(error)

        self._ended = both

    def begin(self) -> bool:
        """Take the connection; False where the writer gave up waiting."""
        with self._mutex:
            self._taken = self._conn is not None
        if self._conn is not None:
            driver_connection(self._conn).set_progress_handler(self._look, STEPS)
        return self._taken

    def run(self, command: Callable[[Connection], T]) -> T:
        """Run a command and answer its result, which is not on the disk yet; raise what it raised, nothing kept.

        Raises TookLonger, and TurnLost where the transaction is lost with all that was run in it.
        """
        assert self._conn is not None
        if self._lost is not None:
            raise TurnLost
        waiting = WaitingCommand(command)
        self.wrote = True
        try:
            self._touched |= run_in_savepoint(self._conn, waiting)
        except BaseException as error:
            self._lost = error
            raise TurnLost from error
        failed, waiting.error = waiting.error, None
        if failed is None:
            result: T = waiting.result
            return result
        try:
            if is_no_text(failed) or is_altered(failed):
                raise NotAtOnce("there are words for that") from failed
            cause = getattr(failed, "orig", failed)
            if getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
                raise TookLonger from failed
            raise failed
        finally:
            failed = cause = None  # as in WaitingCommand.outcome

    @contextmanager
    def call(self) -> Iterator[None]:
        """A block whose commands are undone, all of them, where it ends by NotAtOnce."""
        if self._lost is not None or self._conn is None:
            raise TurnLost
        raw = driver_connection(self._conn)
        keep_short(self._conn, True)
        before = set(self._touched)
        self._looks = 0
        self.wrote = False
        raw.execute("SAVEPOINT call")
        try:
            yield
        except NotAtOnce:
            if self._lost is None:
                raw.execute("ROLLBACK TO call")
            self._touched = before
            raise
        finally:
            if self._lost is None:
                raw.execute("RELEASE call")

    def give_back(self) -> None:
        """Have the writer commit."""
        if self._conn is not None and self._taken:
            keep_short(self._conn, False)
            driver_connection(self._conn).set_progress_handler(None, 0)
        self._back.release()

    def _look(self) -> int:
        self._looks += 1
        return int(self._looks > MOST_LOOKS)

    # By the writer's thread --------------------------------------------------------------------------

    def go(self, conn: Connection) -> set[int]:
        """Lend the connection and wait until it is back; the servers that changed. Raises what lost the transaction."""
        self._conn = conn
        try:
            self._lent(self)
        except RuntimeError:
            self._conn = None  # whoever asked is gone, with the event loop
            return set()
        if not self._back.acquire(timeout=PATIENCE_SECONDS):
            with self._mutex:
                if not self._taken:
                    self._conn = None
                    return set()
            self._back.acquire()
        self._conn = None
        if self._lost is not None:
            raise self._lost
        return self._touched

    def finish(self) -> None:
        """The commit was made, or error says why not."""
        error = self.error if self.error is None or isinstance(self.error, Exception) else None
        with suppress(RuntimeError):  # whoever asked is gone, with the event loop
            self._ended(TurnLost() if self._lost is not None else error)


def run_in_savepoint(conn: Connection, waiting: WaitingCommand) -> set[int]:
    """Run one command so that it leaves all or nothing; what it announced. Raises if the batch is lost."""
    raw = driver_connection(conn)
    transaction = conn.get_transaction()
    raw.execute("SAVEPOINT command")
    changes.begin_announcing(conn)
    sealed.begin_counting(conn)
    try:
        waiting.result = waiting.command(conn)
        sealed.settle(conn)
    except BaseException as error:  # the command's own: raised for who gave it, and the batch goes on
        waiting.error = error
    announced = changes.end_announcing(conn)
    if conn.get_transaction() is not transaction or not raw.in_transaction:
        # A full disk makes SQLite undo everything; a command that commits by itself is a mistake of ours.
        raise RuntimeError(f"the transaction ended inside a command ({waiting.error or 'it must not commit'})")
    if waiting.error is not None and is_damage(waiting.error):
        raise waiting.error  # nothing more goes into this file
    if waiting.error is not None:
        raw.execute("ROLLBACK TO command")
        announced = set()
    raw.execute("RELEASE command")
    return announced
