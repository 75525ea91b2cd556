"""Commands inside the transaction of the thread that writes to SQLite; must not know what they do.

A command runs in a savepoint, on the writer's thread or on another one that the transaction is lent to. Commands of a
lent one may defer to its end what is written once for all of them (store/sealing/deferred_writes.py).
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from sqlalchemy import Connection

from keyrack.store import changes
from keyrack.store.changes import driver_connection
from keyrack.store.engine.altered import is_altered
from keyrack.store.engine.connect import is_damage, is_no_text
from keyrack.store.engine.nonblocking import MAX_CHECKS, STEPS, TooSlow, WouldBlock, keep_short
from keyrack.store.engine.quick import as_quick
from keyrack.store.sealing import held_servers, sums
from keyrack.store.sealing.deferred_writes import Deferred, DeferredWrites
from keyrack.store.sealing.seals import seals_of

T = TypeVar("T")
Command = Callable[[Connection], Any]

BEGIN_TIMEOUT_SECONDS = 5.0
"""How long the writer waits for the event loop to begin to use the transaction that it asked for."""


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


class TransactionLost(WouldBlock):
    """A lent transaction ended under its commands: none of them is on the disk, nor will be."""


class LentTransaction:
    """A transaction of the writer's, whose connection is lent to one other thread while that runs commands in it. They
    must be short: SQLite stops where one takes more than a few milliseconds.

    Nothing that was run is on the disk before `ended` is called. All of it is undone where a command ends the
    transaction, or where the commit fails.
    """

    def __init__(self, lent: Callable[[LentTransaction], None], ended: Callable[[Exception | None], None]) -> None:
        """lent, ended: called by the writer's thread, and must return at once: begin() it now; all that was run is on
        the disk, or is not, for this reason. Neither may hold the lent transaction itself: the circle, with every
        request that writes in it, would live until the collector comes.
        """
        self._lent, self._ended = lent, ended
        self._mutex = threading.Lock()
        self._back = threading.Lock()
        self._back.acquire()
        self._conn: Connection | None = None
        self._deferred_writes: DeferredWrites | None = None
        # What was so when the first command of the call under way began.
        self._deferred: Deferred = Deferred()
        self._before: set[int] = set()
        self._taken = False
        self._touched: set[int] = set()
        self._checks = 0
        self._lost: BaseException | None = None
        self.wrote = False
        """Whether a command ran in the call that is under way."""
        self.error: BaseException | None = None
        """Why nothing of it was committed, as the writer says."""

    def add_done_callback(self, callback: Callable[[Exception | None], None]) -> None:
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
            driver_connection(self._conn).set_progress_handler(self._count_steps, STEPS)
        return self._taken

    def run(self, command: Callable[[Connection], T], *, may_hold: bool = False, defers_tree: bool = False) -> T:
        """Run a command and answer its result, which is not on the disk yet; raise what it raised, nothing kept.

        may_hold, defers_tree: see DeferredWrites.begin. Raises TooSlow, and TransactionLost where all that was run
        in the transaction is lost.
        """
        assert self._conn is not None
        assert self._deferred_writes is not None
        if self._lost is not None:
            raise TransactionLost
        waiting = WaitingCommand(command)
        deferred = self._deferred_writes.deferred
        if not self.wrote:
            # The first one of a call is undone as the call is: a savepoint for both.
            driver_connection(self._conn).execute("SAVEPOINT call")
            self.wrote, self._deferred, self._before, name = True, deferred, set(self._touched), "call"
        else:
            driver_connection(self._conn).execute("SAVEPOINT command")
            name = "command"
        try:
            self._deferred_writes.begin(may_hold=may_hold, defers_tree=defers_tree)
            self._touched |= _run(self._conn, waiting, self._deferred_writes.settle)
            if waiting.error is not None:
                self._undo(name, deferred)
            if name == "command":
                driver_connection(self._conn).execute("RELEASE command")
        except BaseException as error:
            self._lost = error
            raise TransactionLost from error
        failed, waiting.error = waiting.error, None
        if failed is None:
            result: T = waiting.result
            return result
        try:
            if is_no_text(failed) or is_altered(failed):
                raise WouldBlock("there are words for that") from failed
            cause = getattr(failed, "orig", failed)
            if getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
                raise TooSlow from failed
            raise failed
        finally:
            failed = cause = None  # as in WaitingCommand.outcome

    def begin_call(self) -> None:
        """Begin what undo_call() undoes as one, and end_call() ends."""
        if self._lost is not None or self._conn is None:
            raise TransactionLost
        keep_short(self._conn, True)
        self._checks = 0
        self.wrote = False

    def undo_call(self) -> None:
        """Undo all commands since the call began."""
        if self._lost is None and self.wrote:
            self._undo("call", self._deferred)
            self._touched = self._before

    def end_call(self) -> None:
        """End the call."""
        if self._lost is None and self.wrote:
            assert self._conn is not None
            driver_connection(self._conn).execute("RELEASE call")

    def _undo(self, savepoint: str, deferred: Deferred) -> None:
        """Go back to a savepoint, and to what was deferred then."""
        assert self._conn is not None
        assert self._deferred_writes is not None
        driver_connection(self._conn).execute(f"ROLLBACK TO {savepoint}")
        self._deferred_writes.deferred = deferred

    def give_back(self) -> None:
        """Have the writer commit."""
        if self._conn is not None and self._taken:
            keep_short(self._conn, False)
            driver_connection(self._conn).set_progress_handler(None, 0)
        self._back.release()

    def _count_steps(self) -> int:
        self._checks += 1
        return int(self._checks > MAX_CHECKS)

    # By the writer's thread --------------------------------------------------------------------------

    def go(self, conn: Connection) -> set[int]:
        """Lend the connection and wait until it is back; the servers that changed. Raises what lost the transaction."""
        quick = as_quick(conn)
        with held_servers.holding(quick):
            self._deferred_writes = DeferredWrites(quick)
            try:
                return self._lend(quick)
            finally:
                self._conn = self._deferred_writes = None

    def _lend(self, conn: Connection) -> set[int]:
        assert self._deferred_writes is not None
        self._conn = conn
        try:
            self._lent(self)
        except RuntimeError:
            return set()  # whoever asked is gone, with the event loop
        if not self._back.acquire(timeout=BEGIN_TIMEOUT_SECONDS):
            with self._mutex:
                if not self._taken:
                    self._conn = None
                    return set()
            self._back.acquire()
        if self._lost is not None:
            raise self._lost
        unreported = seals_of(conn).unreported
        before = len(unreported)
        try:
            self._deferred_writes.write()
            if len(unreported) > before:
                raise WouldBlock("an alarm is to be written")
        except BaseException as error:
            self._lost = error
            raise
        return self._touched

    def finish(self) -> None:
        """The commit was made, or error says why not."""
        error = self.error if self.error is None or isinstance(self.error, Exception) else None
        with suppress(RuntimeError):  # whoever asked is gone, with the event loop
            self._ended(TransactionLost() if self._lost is not None else error)


def run_in_savepoint(conn: Connection, waiting: WaitingCommand) -> set[int]:
    """Run one command so that it leaves all or nothing; what it announced. Raises if the batch is lost."""
    raw = driver_connection(conn)
    raw.execute("SAVEPOINT command")
    sums.begin_counting(conn)
    announced = _run(conn, waiting, lambda: sums.settle(conn))
    if waiting.error is not None:
        raw.execute("ROLLBACK TO command")
    raw.execute("RELEASE command")
    return announced


def _run(conn: Connection, waiting: WaitingCommand, settle: Callable[[], None]) -> set[int]:
    """Run one command; what it announced. Where it failed the caller undoes it. Raises if the batch is lost."""
    transaction = conn.get_transaction()
    changes.begin_announcing(conn)
    try:
        waiting.result = waiting.command(conn)
        settle()
    except BaseException as error:  # the command's own: raised for who gave it, and the batch goes on
        waiting.error = error
    announced = changes.end_announcing(conn)
    if conn.get_transaction() is not transaction or not driver_connection(conn).in_transaction:
        # A full disk makes SQLite undo everything; a command that commits by itself is a mistake of ours.
        raise RuntimeError(f"the transaction ended inside a command ({waiting.error or 'it must not commit'})")
    if waiting.error is None:
        return announced
    if is_damage(waiting.error):
        raise waiting.error  # nothing more goes into this file
    return set()
