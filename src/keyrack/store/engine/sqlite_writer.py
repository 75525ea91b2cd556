"""The one thread that writes to SQLite, and commits waiting commands together; must not know what they do."""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Engine

from keyrack.store import changes
from keyrack.store.changes import driver_connection
from keyrack.store.engine.altered import is_altered
from keyrack.store.engine.connect import DatabaseUnavailable, DatabaseUnusable, is_damage, is_locked, unavailable
from keyrack.store.engine.sqlite_commands import Command, LentTransaction, WaitingCommand, run_in_savepoint
from keyrack.store.engine.sqlite_file import SqliteFile, count_commit

log = logging.getLogger(__name__)

BATCH_LIMIT = 256
"""Commands in one transaction, so that the first of them is not kept waiting by the last."""
POLL_SECONDS = 0.1
"""How often an idle writer checks whether another process changed the file; a check takes microseconds."""

Deliver = Callable[[frozenset[int]], None]
Waiting = WaitingCommand | LentTransaction


class SqliteWriter:
    """Runs commands one after another, each in a savepoint, and commits all that were waiting together.

    A sync to the disk costs the same for one command as for a hundred. While one commit is under way the next commands
    gather; the writer never waits for more to come.
    """

    def __init__(self, engine: Engine, file: SqliteFile, deliver: Deliver) -> None:
        """engine: opens this file; deliver: called with the ids of servers that changed."""
        self._engine = engine
        self._file = file
        self._deliver = deliver
        self._queue: queue.SimpleQueue[Waiting | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        # The rest belongs to the thread alone.
        self._connection: Connection | None = None
        self._watching = False
        self._seen_change = 0
        self._seen_version = 0
        self._last_error = ""
        self._next: Waiting | None = None

    is_free = True
    """Always: commands wait only for each other."""

    def run(
        self,
        command: Command,
        workspace_lock: int | None = None,
        prefetch: object = None,
        defers_tree: bool = False,
    ) -> Any:
        """Run a command and return its result once it is on the disk; if it raises, nothing is kept.

        workspace_lock: not needed, as no two commands run at the same time. prefetch, defers_tree: not used here.
        """
        if threading.current_thread() is self._thread:
            raise RuntimeError("A command must not start another write: it would wait for itself.")
        waiting = WaitingCommand(command)
        self._put(waiting)
        return waiting.outcome()

    def lend_transaction(self, transaction: LentTransaction) -> None:
        """Begin this transaction once nothing else is being written, and lend it; returns immediately."""
        self._put(transaction)

    def _put(self, waiting: Waiting) -> None:
        with self._gate:
            if self._closed:
                raise RuntimeError("The database is closed.")
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="keyrack-sqlite-writer", daemon=True)
                thread.start()  # where the system has no thread left this raises, and the next write tries again
                self._thread = thread
            self._queue.put(waiting)

    def watch(self) -> None:
        """From now on poll for changes made by other processes, and deliver them."""
        self.run(self._start_watching)

    def close(self) -> None:
        """Finish what is waiting and stop."""
        with self._gate:
            self._closed = True
            thread = self._thread
            self._queue.put(None)
        if thread is not None:
            thread.join()

    # In the thread -----------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            batch, last = self._take()
            try:
                if batch:
                    self._commit_together(batch)
                elif self._watching and not last:
                    self._poll()
                self._last_error = ""
            except Exception as error:  # without this thread nothing is written any more
                if self._file.problem is None and str(error) != self._last_error:  # logged once, not at every poll
                    words = "A write to SQLite failed unexpectedly; later writes go on."
                    if is_altered(error):
                        log.error("%s %s", words, error)
                    else:
                        log.exception(words)
                    self._last_error = str(error)
            if last:
                self._drop_connection()
                return

    def _take(self) -> tuple[list[Waiting], bool]:
        """The waiting commands, up to the limit, or none after a while; and whether the writer is being closed."""
        first, self._next = self._next, None
        if first is None:
            try:
                first = self._queue.get(timeout=POLL_SECONDS if self._watching else None)
            except queue.Empty:
                return [], False
        batch: list[Waiting] = []
        while first is not None:
            # A lent transaction is a batch by itself: if it is lost, no other command is lost with it.
            if isinstance(first, LentTransaction) and batch:
                self._next = first
                return batch, False
            batch.append(first)
            if len(batch) == BATCH_LIMIT or isinstance(first, LentTransaction):
                return batch, False
            try:
                first = self._queue.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True

    def _commit_together(self, batch: list[Waiting]) -> None:
        """One transaction for the batch. Callers wake after the commit; listeners after the callers."""
        touched: set[int] = set()
        others: frozenset[int] = frozenset()
        try:
            conn = self._open()
            self._check_file(conn)
            raw = driver_connection(conn)
            with conn.begin():
                commits = self._count(raw)
                before = raw.total_changes
                for waiting in batch:
                    if isinstance(waiting, LentTransaction):
                        touched |= waiting.go(conn)
                    else:
                        touched |= run_in_savepoint(conn, waiting)
                latest = self._seen_change
                if touched or self._watching:
                    others, latest = self._record(conn, touched)
                if raw.total_changes != before:
                    commits = count_commit(raw, commits)
            # Nothing is acknowledged that was written to a file which is no longer in place.
            self._check_file(conn)
            self._file.counted(commits)
            self._seen_change = latest
        except Exception as error:  # the whole batch is lost; raised for every caller
            self._note_damage(error)
            self._drop_connection()
            if is_locked(error):
                batch += self._drain_queue()
            # No command of the batch is on the disk, not even those that succeeded.
            _fail_all(batch, error)
            touched, others = set(), frozenset()
        for waiting in batch:
            waiting.finish()
        if touched or others:
            self._deliver(frozenset(touched) | others)

    def _drain_queue(self) -> list[Waiting]:
        """What was queued while the lock was waited for in vain: each would else wait as long again, one by one."""
        queued, self._next = [self._next] if self._next else [], None
        for _ in range(self._queue.qsize()):
            one = self._queue.get_nowait()
            if one is None:  # the writer is being closed; nothing comes after it
                self._queue.put(None)
            else:
                queued.append(one)
        return queued

    def _record(self, conn: Connection, touched: set[int]) -> tuple[frozenset[int], int]:
        """Number the batch's announcements. Answers the ids of servers that other processes changed since the last
        poll, and the number.
        """
        latest = changes.latest_on_sqlite(conn)
        others: frozenset[int] = frozenset()
        if self._watching and latest > self._seen_change:
            others = changes.since_on_sqlite(conn, self._seen_change)
        if touched:
            latest += 1
            changes.record_on_sqlite(conn, touched, latest)
        return others, latest

    def _start_watching(self, conn: Connection) -> None:
        if not self._watching:  # otherwise changes of others since the last poll would be skipped
            self._seen_change = changes.latest_on_sqlite(conn)
            self._watching = True

    def _poll(self) -> None:
        """Deliver what other processes changed; SQLite's data_version tells cheaply whether any did."""
        if self._file.problem is not None:
            return
        try:
            conn = self._open()
            if not self._file.check(driver_connection(conn)):
                return
            version = driver_connection(conn).execute("PRAGMA data_version").fetchone()[0]
            if version == self._seen_version:
                return
            with conn.begin():
                commits = self._count(driver_connection(conn))
                others, latest = self._record(conn, set())
        except Exception as error:  # a lock is raised for the callers that wait behind it, other errors here
            self._note_damage(error)
            self._drop_connection()
            if not is_locked(error):
                raise
            waited = self._drain_queue()
            _fail_all(waited, error)
            for waiting in waited:
                waiting.finish()
            return  # a later poll finds what was changed
        self._file.counted(commits)
        self._seen_version, self._seen_change = version, latest
        if others:
            self._deliver(others)

    def _open(self) -> Connection:
        if self._connection is None:
            self._connection = self._engine.connect()
            self._file.watch(driver_connection(self._connection))
            self._seen_version = 0
        return self._connection

    def _check_file(self, conn: Connection) -> None:
        if not self._file.check(driver_connection(conn)):
            raise DatabaseUnusable(self._file.problem)

    def _count(self, raw: sqlite3.Connection) -> int:
        """How many commits the database counts. Raises DatabaseUnusable where they were more before."""
        commits = self._file.count(raw)
        if self._file.problem is not None:
            raise DatabaseUnusable(self._file.problem)
        return commits

    def _note_damage(self, error: Exception) -> None:
        """Tell the file about damage; called before any connection is closed, as closing may write."""
        if is_damage(error):
            self._file.mark_damaged(getattr(error, "orig", error))

    def _drop_connection(self) -> None:
        """Close a connection whose state is unknown; the next batch opens another."""
        conn, self._connection = self._connection, None
        self._file.unwatch()
        if conn is None:
            return
        try:
            conn.invalidate()
            conn.close()
        except Exception:  # it is not used again in any case
            log.exception("A broken SQLite connection did not close cleanly.")


def _fail_all(batch: list[Waiting], error: Exception) -> None:
    for waiting in batch:
        if waiting.error is None:
            waiting.error = error if isinstance(error, DatabaseUnavailable) else unavailable(error)
            waiting.error.__cause__ = error.__cause__ if waiting.error is error else error
