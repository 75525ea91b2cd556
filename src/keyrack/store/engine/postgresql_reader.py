"""Questions to PostgreSQL: one statement by itself where one is enough, else a transaction; must know no question."""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.engine import URL

from keyrack.store.engine import fibers
from keyrack.store.engine.connect import postgresql_engine
from keyrack.store.engine.pipeline import MoreThanOne
from keyrack.store.engine.pool import Pool
from keyrack.store.engine.shared_reads import SharedReads, lone_connection
from keyrack.store.sealing import access_tree
from keyrack.store.sealing.seals import Seals, attach_to_engine

T = TypeVar("T")

MAX_SKIPPED = 256
"""So often at most a question is asked in a transaction at once, before it is tried again without one."""


class PostgresqlReader:
    """Asks, on connections that cannot write: threads on some, fibers on others, which an event loop looks after.

    A statement that is all there is to a question needs no BEGIN and no COMMIT: it sees one instant by itself. Whether
    it is all shows while it is asked. One that goes on is asked again, in a transaction, and so the next times.
    """

    def __init__(self, url: URL, connections: int, for_fibers: int, patience: float, seals: Seals) -> None:
        """connections, for_fibers: how many at most; patience (seconds): see Pool."""
        engine = postgresql_engine(url, writer=False, json_as_text=True)
        attach_to_engine(engine, seals)
        self._pool = Pool(engine, connections, patience)
        self._for_fibers = Pool(engine, for_fibers, patience)
        self._shared = SharedReads(self._for_fibers)
        self._dialect, self._seals = engine.dialect, seals
        # By a question's code: how often it is asked in a transaction from now on, and how often the next time.
        self._passed: dict[CodeType, tuple[int, int]] = {}

    def ask(self, question: Callable[[Connection], T]) -> T:
        """What a question answers; all of it sees the same instant."""
        fiber = fibers.current()
        code = getattr(question, "__code__", None)
        if fiber is not None and code is not None and self._may_be_one(code):
            try:
                result = question(lone_connection(self._shared, fiber, self._dialect, self._seals))
                self._passed.pop(code, None)
                return result
            except MoreThanOne:
                self._pass_over(code)
                code = None
        with (self._pool if fiber is None else self._for_fibers).connection() as conn:
            if fiber is None and code is not None and self._may_be_one(code):
                try:
                    result = self._ask_one(conn, question)
                    self._passed.pop(code, None)
                    return result
                except MoreThanOne as wanted:
                    wanted.__traceback__ = None  # a frame of SQLAlchemy's in it holds the error: a circle
                    self._pass_over(code)
            with conn.begin():
                access_tree.begin(conn, reads=True)
                return question(conn)

    def close(self) -> None:
        """Let go of the connections."""
        self._pool.close()
        self._for_fibers.close()

    def _may_be_one(self, code: CodeType) -> bool:
        left, most = self._passed.get(code, (0, 2))
        if not left:
            return True
        self._passed[code] = (left - 1, most)
        return False

    def _pass_over(self, code: CodeType) -> None:
        _, most = self._passed.get(code, (0, 2))
        self._passed[code] = (most, min(2 * most, MAX_SKIPPED))

    def _ask_one(self, conn: Connection, question: Callable[[Connection], T]) -> T:
        with conn.begin(), conn.connection.driver_connection.lone():  # type: ignore[union-attr]
            access_tree.begin(conn, reads=True)
            return question(conn)
