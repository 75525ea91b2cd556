"""Group commit on PostgreSQL: commands that take the same workspace lock are run one after another and committed
together; must know no command's meaning.

Commands that take the same lock run one after another anyhow. So a command that comes while another one waits for the
database joins its transaction, instead of waiting for that commit and then for a commit of its own. The first questions
of all waiting commands (their prefetches) are sent together, where it is known how an earlier command's writes change
the answers.
"""

from __future__ import annotations

import contextvars
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, Protocol

from sqlalchemy import Connection, Select, Transaction, func, select
from sqlalchemy.exc import DBAPIError, PendingRollbackError

from keyrack.store import changes
from keyrack.store.engine import fibers
from keyrack.store.engine.altered import is_altered
from keyrack.store.engine.connect import CommitInDoubt, answer, is_unavailable
from keyrack.store.engine.execute import send, statements_that_write
from keyrack.store.engine.fibers import Fiber
from keyrack.store.engine.nonblocking import keep_short
from keyrack.store.engine.pool import Pool
from keyrack.store.engine.prepared import prepared
from keyrack.store.engine.quick import as_quick
from keyrack.store.sealing import held_servers
from keyrack.store.sealing.deferred_writes import DeferredWrites

MAX_COMMANDS = 16
MAX_SECONDS = 0.05
"""After so long no further command joins, so that the last one does not keep the first waiting; except a command whose
prefetch is answered already, so that only the command itself is left to run.
"""
SENT_EACH = 4
"""After so many commands their queued statements are sent, so that the server works while the next commands run."""
_LOCK_CLASS = 0x6B6579  # keeps our advisory locks apart from those of other programs in the same database


class Prefetch(Protocol):
    """The first question of a command, apart from it, so that those of several commands can be sent together."""

    def start(self, connection: Connection) -> None:
        """Send it in this transaction, without waiting for the answer."""
        ...

    def discard(self) -> None:
        """Drop the answer, which may no longer be right: the command asks again."""
        ...

    def accounts_for(self, other: Any) -> bool:
        """Whether its answer takes account of everything that the command of another prefetch just wrote."""
        ...


class QueuedCommand:
    """A command, the fiber that waits for it, and its result."""

    def __init__(
        self,
        command: Callable[[Connection], Any],
        fiber: Fiber,
        prefetch: Prefetch | None = None,
        defers_tree: bool = False,
    ) -> None:
        """prefetch, defers_tree: see Database.write."""
        self.command, self.fiber, self.prefetch, self.defers_tree = command, fiber, prefetch, defers_tree
        self.context = contextvars.copy_context()
        self.came = fibers.signal()
        self.leads = False
        """Whether its fiber runs the commands of the whole group."""
        self.again = False
        """Whether it was undone, perhaps because of another command, and has to run again alone."""
        self.result: Any = None
        self.error: BaseException | None = None


class _Lost(Exception):
    """The transaction cannot go on."""


class GroupCommit:
    """One transaction for the commands of several fibers."""

    def __init__(self, pool: Pool, workspace_lock: int, first: QueuedCommand, queue: deque[QueuedCommand]) -> None:
        """queue: the commands that may still join."""
        self._pool, self._workspace_lock = pool, workspace_lock
        self._queue = queue
        self.members = [first]
        self._prefetched: dict[QueuedCommand, bool] = {}
        """The commands whose prefetch was sent, and whether its answer is still right."""
        self.recorded: dict[int, int] = {}

    def go(self) -> None:
        """Run the commands of all members, and put the result or error of each into it."""
        try:
            self.recorded = answer(self._commit_all, again=False)
        except _Lost:
            for member in self.members:
                member.again, member.error = True, None
        except Exception as error:  # raised by run() in each member's own fiber
            for member in self.members:
                member.error = error
        except BaseException:  # ends this fiber or the program; nothing was committed, so the others run again
            for member in self.members[1:]:
                member.again, member.error = True, None
            raise

    def _commit_all(self) -> dict[int, int]:
        ahead = False
        try:
            with self._pool.connection() as whole, committed(whole):
                conn = as_quick(whole)
                lock_workspace(conn, self._workspace_lock)
                announced = self._make_all(conn)
                recorded = changes.record_on_postgresql(conn, announced) if announced else dict
                ahead = True
        except (DBAPIError, _Lost) as error:
            raise _Lost from error
        return recorded() if ahead else {}

    def _make_all(self, conn: Connection) -> set[int]:
        with held_servers.holding(conn):
            deferred = DeferredWrites(conn)
            announced = self._make_each(conn, deferred)
            deferred.write()
        return announced

    def _make_each(self, conn: Connection, deferred: DeferredWrites) -> set[int]:
        announced = self._make(conn, self.members[0], deferred)  # which may have waited long for the lock
        until = time.monotonic() + MAX_SECONDS
        while self._queue and len(self.members) < MAX_COMMANDS:
            if time.monotonic() < until:
                self._start_prefetches(conn)
            elif not self._prefetched.get(self._queue[0], False):
                break
            self.members.append(self._queue.popleft())
            announced |= self._make(conn, self.members[-1], deferred)
            if len(self.members) % SENT_EACH == 0:
                send(conn)
        return announced

    def _start_prefetches(self, conn: Connection) -> None:
        """Send the prefetches of the commands that may still join."""
        for queued in islice(self._queue, MAX_COMMANDS - len(self.members)):
            if queued.prefetch is not None and queued not in self._prefetched:
                held_servers.write(conn)  # else the answer would lack the rows that are held
                queued.prefetch.start(conn)
                self._prefetched[queued] = True

    def _check_prefetches(self, wrote: QueuedCommand) -> None:
        """After a command that wrote: drop the prefetched answers that do not take account of its writes."""
        for queued in self._prefetched:
            if queued.prefetch is not None and (
                wrote.prefetch is None or not queued.prefetch.accounts_for(wrote.prefetch)
            ):
                queued.prefetch.discard()
                self._prefetched[queued] = False

    def _make(self, conn: Connection, queued: QueuedCommand, deferred: DeferredWrites) -> set[int]:
        """Run one command; if it fails after it wrote, the whole transaction is lost. Answers what it announced."""
        transaction = conn.get_transaction()
        deferred.begin(may_hold=queued.prefetch is not None, defers_tree=queued.defers_tree)
        before = self._wrote(conn)
        keep_short(conn, not queued.fiber.wrote)
        changes.begin_announcing(conn)
        try:
            queued.result = queued.context.run(queued.command, conn)
            deferred.settle()
        except (DBAPIError, PendingRollbackError) as error:
            # It may be the error of a statement that an earlier command queued.
            raise _Lost from error
        except Exception as error:  # the command's own, raised for its caller; the others go on
            queued.error = error
        announced = changes.end_announcing(conn)
        if conn.get_transaction() is not transaction:
            raise RuntimeError("A command must not commit or roll back by itself.")
        self._prefetched.pop(queued, None)
        wrote = self._wrote(conn) != before
        if queued.error is None:
            if wrote:
                self._check_prefetches(queued)
            return announced
        if wrote:
            # There are no savepoints, which would be two more statements for every command: nearly all commands that
            # fail have written nothing before.
            raise _Lost from queued.error
        return set()

    @staticmethod
    def _wrote(conn: Connection) -> int:
        """How many statements that may write the commands themselves have sent."""
        return statements_that_write(conn) - held_servers.written(conn)


@contextmanager
def committed(conn: Connection) -> Iterator[Transaction]:
    """A transaction that is committed at the end of the block. Raises CommitInDoubt if it may have been committed."""
    transaction = conn.begin()
    try:
        yield transaction
    except BaseException:
        if conn.get_transaction() is transaction:
            transaction.rollback()
        raise
    try:
        transaction.commit()
    except Exception as error:
        if is_unavailable(error) and not is_altered(error):  # after a lost write the server surely undid it
            raise CommitInDoubt from error
        transaction.rollback()  # the error of a queued statement shows here
        raise


def lock_workspace(conn: Connection, workspace_id: int) -> None:
    """Take the lock of a workspace until the end of the transaction; waits until it is free. On SQLite none is needed,
    as commands run one after another anyhow.
    """
    if conn.dialect.name == "postgresql":
        _locking.enqueue(conn, _LOCK_CLASS, workspace_id)


@prepared
def _locking(kind: int, number: int) -> Select[Any]:
    return select(func.pg_advisory_xact_lock(kind, number))
