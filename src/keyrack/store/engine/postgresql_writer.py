"""Writes to PostgreSQL: each command in a transaction of its own, or in one with others (group_commit.py); must know no
command's meaning.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import psycopg
from sqlalchemy import Connection
from sqlalchemy.engine import URL

from keyrack.store import changes
from keyrack.store.engine import fibers
from keyrack.store.engine.connect import (
    DatabaseUnavailable,
    answer,
    is_conflict,
    postgresql_connection,
    postgresql_engine,
)
from keyrack.store.engine.group_commit import GroupCommit, Prefetch, QueuedCommand, committed, lock_workspace
from keyrack.store.engine.listen import ChangeListener, Notifier
from keyrack.store.engine.nonblocking import keep_short
from keyrack.store.engine.pool import Pool
from keyrack.store.engine.table_statistics import TableStatistics
from keyrack.store.sealing import sums
from keyrack.store.sealing.seals import Seals, attach_to_engine

T = TypeVar("T")
Command = Callable[[Connection], T]
Deliver = Callable[[frozenset[int]], None]

ATTEMPTS = 12
"""How often a command is run that PostgreSQL undoes (serialization failure, deadlock) before its caller is told."""
PAUSE_SECONDS = 0.002
"""The first pause on average; it doubles each time, up to 50 times as long."""


class PostgresqlWriter:
    """Runs commands concurrently, again after conflicts, and notifies other processes when servers changed."""

    def __init__(
        self, url: URL, connections: int, for_fibers: int, patience: float, deliver: Deliver, seals: Seals
    ) -> None:
        """connections, for_fibers: how many at most, for threads and for fibers; patience (seconds): see Pool;
        deliver: called with the ids of servers that changed.
        """
        self._url = url
        self._deliver = deliver
        engine = postgresql_engine(url, writer=True, json_as_text=True)
        attach_to_engine(engine, seals)
        self._pool = Pool(engine, connections, patience)
        self._for_fibers = Pool(engine, for_fibers, patience)
        self._notifier = Notifier(self._connect)
        self._statistics = TableStatistics(self._connect)
        self._listener: ChangeListener | None = None
        self._patience = patience
        self._queues: dict[tuple[object, int], deque[QueuedCommand]] = {}

    def run(
        self,
        command: Command[T],
        workspace_lock: int | None = None,
        prefetch: Prefetch | None = None,
        defers_tree: bool = False,
    ) -> T:
        """Run a command and return its result once it is on the disk; if it raises, nothing is kept.

        Arguments as those of Database.write. Commands of fibers that take the same lock are committed together.
        """
        fiber = fibers.current()
        if fiber is None or workspace_lock is None:
            return self._alone(command, workspace_lock)
        me = QueuedCommand(command, fiber, prefetch, defers_tree)
        queue = self._queues.get((fiber.loop, workspace_lock))
        if queue is None:
            self._queues[fiber.loop, workspace_lock] = deque()
            me.leads = True
        else:
            queue.append(me)
            self._await_group(me, queue)
        if me.leads:
            self._lead(me, workspace_lock)
        if me.again:
            return self._alone(command, workspace_lock)
        if me.error is not None:
            try:
                raise me.error
            finally:
                me.error = None  # its traceback refers to this frame: else a reference cycle
        result: T = me.result
        return result

    @property
    def is_free(self) -> bool:
        """Whether a command of this thread or fiber would find a free connection."""
        return self._pool_here.has_free

    @property
    def _pool_here(self) -> Pool:
        return self._pool if fibers.current() is None else self._for_fibers

    def _alone(self, command: Command[T], workspace_lock: int | None) -> T:
        attempt = 0
        pool = self._pool_here
        while True:
            attempt += 1
            try:
                result, recorded = answer(lambda: _run_once(pool, command, workspace_lock), again=True)
                break
            except Exception as error:  # each driver has its own class for a conflict; others are raised
                if not is_conflict(error) or attempt == ATTEMPTS:
                    raise
            fibers.sleep(PAUSE_SECONDS * min(2 ** (attempt - 1), 50) * random.uniform(0, 2))  # noqa: S311
        self._made_known(recorded, 1)
        return result

    def _await_group(self, me: QueuedCommand, queue: deque[QueuedCommand]) -> None:
        while not me.came.acquire(timeout=self._patience):
            if me in queue:
                queue.remove(me)
                raise DatabaseUnavailable("The database has too much to do at the moment. Try again later.")
            # Else it runs just now.

    def _lead(self, me: QueuedCommand, workspace_lock: int) -> None:
        """Run a fiber's command, together with those that are queued for the same lock meanwhile."""
        queue = self._queues[me.fiber.loop, workspace_lock]
        group = GroupCommit(self._for_fibers, workspace_lock, me, queue)
        try:
            group.go()
        finally:
            self._made_known(group.recorded, len(group.members))
            for one in group.members:
                if one is not me:
                    one.came.release()
            if queue:
                following = queue.popleft()
                following.leads = True
                following.came.release()
            else:
                del self._queues[me.fiber.loop, workspace_lock]

    def _made_known(self, recorded: dict[int, int], commands: int) -> None:
        self._statistics.changed(max(commands, len(recorded)))
        if recorded:
            if self._listener is not None:
                self._listener.mark_delivered(recorded)
            self._notifier.notify()
            self._deliver(frozenset(recorded))

    def watch(self) -> None:
        """From now on also deliver what other processes change; not to be called by two threads at the same time."""
        if self._listener is None:
            listener = ChangeListener(self._connect, self._deliver, lambda: self._notifier.process)
            listener.start()
            self._listener = listener

    def close(self) -> None:
        """Send the last notification if one is due, and close the connections."""
        if self._listener is not None:
            self._listener.close()
        self._notifier.close()
        self._statistics.close()
        self._pool.close()
        self._for_fibers.close()

    def _connect(self) -> psycopg.Connection[Any]:
        return postgresql_connection(self._url)


def _run_once(pool: Pool, command: Command[T], workspace_lock: int | None) -> tuple[T, dict[int, int]]:
    """One attempt: the command's result and the announcements recorded with it."""
    with pool.connection() as conn, committed(conn) as transaction:
        if workspace_lock is not None:
            lock_workspace(conn, workspace_lock)
        fiber = fibers.current()
        keep_short(conn, fiber is not None and not fiber.wrote)
        changes.begin_announcing(conn)
        sums.begin_counting(conn)
        result = command(conn)
        sums.settle(conn)
        announced = changes.end_announcing(conn)
        recorded = changes.record_on_postgresql(conn, announced) if announced else dict
        if conn.get_transaction() is not transaction:
            raise RuntimeError("A command must not commit or roll back by itself.")
    return result, recorded()
