"""Writes to PostgreSQL, each command in a transaction of its own; must know no command's meaning."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

import psycopg
from sqlalchemy import Connection
from sqlalchemy.engine import URL

from keyrack.store import changes, sealed
from keyrack.store.engine.connect import (
    CommitInDoubt,
    answer,
    is_conflict,
    is_unavailable,
    postgresql_connection,
    postgresql_engine,
)
from keyrack.store.engine.listen import ChangeListener, Notifier
from keyrack.store.engine.pool import Pool
from keyrack.store.sealed import Seals, attach

T = TypeVar("T")
Command = Callable[[Connection], T]
Deliver = Callable[[frozenset[int]], None]

ATTEMPTS = 12
"""How often PostgreSQL may undo a command for the sake of another before the caller hears of it."""
PAUSE_SECONDS = 0.002
"""The first pause on average; it doubles each time, up to 50 times as long."""


class PostgresqlWriter:
    """Runs commands side by side, again where they undid each other, and rings when servers changed."""

    def __init__(self, url: URL, connections: int, patience: float, deliver: Deliver, seals: Seals) -> None:
        """connections and patience (seconds): see Pool; deliver: told the ids of servers that changed."""
        self._url = url
        self._deliver = deliver
        engine = postgresql_engine(url, writer=True, json_as_text=True)
        attach(engine, seals)
        self._pool = Pool(engine, connections, patience)
        self._notifier = Notifier(self._connect)
        self._listener: ChangeListener | None = None

    def run(self, command: Command[T]) -> T:
        """Run a command and return its result once it is on the disk; raise what it raised, nothing kept."""
        attempt = 0
        while True:
            attempt += 1
            try:
                result, recorded = answer(lambda: _run_once(self._pool, command), again=True)
                break
            except Exception as error:
                if not is_conflict(error) or attempt == ATTEMPTS:
                    raise
            time.sleep(PAUSE_SECONDS * min(2 ** (attempt - 1), 50) * random.uniform(0, 2))  # noqa: S311
        if recorded:
            if self._listener is not None:
                self._listener.known(recorded)
            self._notifier.ring()
            self._deliver(frozenset(recorded))
        return result

    def watch(self) -> None:
        """From now on deliver what other processes change; not to be called by two threads at once."""
        if self._listener is None:
            listener = ChangeListener(self._connect, self._deliver)
            listener.start()
            self._listener = listener

    def close(self) -> None:
        """Ring a last time if there is need, and let go of the connections."""
        if self._listener is not None:
            self._listener.close()
        self._notifier.close()
        self._pool.close()

    def _connect(self) -> psycopg.Connection[Any]:
        return postgresql_connection(self._url)


def _run_once(pool: Pool, command: Command[T]) -> tuple[T, dict[int, int]]:
    """One attempt: the command's result and the announcements recorded with it."""
    with pool.lend() as conn:
        transaction = conn.begin()
        changes.begin_announcing(conn)
        sealed.begin_counting(conn)
        try:
            result = command(conn)
            sealed.settle(conn)
            announced = changes.end_announcing(conn)
            recorded = changes.record_on_postgresql(conn, announced) if announced else dict
            if conn.get_transaction() is not transaction:
                raise RuntimeError("A command must not commit or roll back by itself.")
        except BaseException:
            if conn.get_transaction() is transaction:
                transaction.rollback()
            raise
        try:
            transaction.commit()
        except Exception as error:
            if is_unavailable(error):
                raise CommitInDoubt from error
            transaction.rollback()  # what was told and failed shows here
            raise
    return result, recorded()
