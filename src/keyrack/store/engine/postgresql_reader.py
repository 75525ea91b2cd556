"""Reads PostgreSQL: by a single statement without BEGIN and COMMIT where one is enough, else in a transaction; must
know no question.
"""

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
"""How often in a row, at most, a question is asked in a transaction before it is tried as a single statement again."""


class PostgresqlReader:
    """Asks on connections that cannot write; threads and fibers have a pool each.

    A question of one statement needs no BEGIN and no COMMIT, as a statement sees one snapshot by itself. Whether it is
    one shows only while it is asked. A question that asks a second statement (MoreThanOne) is begun again in a
    transaction, and is asked in one the next times too.
    """

    def __init__(self, url: URL, connections: int, for_fibers: int, patience: float, seals: Seals) -> None:
        """connections, for_fibers: how many at most; patience (seconds): see Pool."""
        engine = postgresql_engine(url, writer=False, json_as_text=True)
        attach_to_engine(engine, seals)
        self._pool = Pool(engine, connections, patience)
        self._for_fibers = Pool(engine, for_fibers, patience)
        self._shared = SharedReads(self._for_fibers)
        self._dialect, self._seals = engine.dialect, seals
        # By a question's code: how many more times it is asked in a transaction before the next try as a single
        # statement, and how many times after that try, if it fails.
        self._skipped: dict[CodeType, tuple[int, int]] = {}

    def ask(self, question: Callable[[Connection], T]) -> T:
        """Ask a question; all its statements see the same snapshot."""
        fiber = fibers.current()
        code = getattr(question, "__code__", None)
        if fiber is not None and code is not None and self._may_be_single(code):
            try:
                result = question(lone_connection(self._shared, fiber, self._dialect, self._seals))
                self._skipped.pop(code, None)
                return result
            except MoreThanOne:
                self._skip(code)
                code = None
        with (self._pool if fiber is None else self._for_fibers).connection() as conn:
            if fiber is None and code is not None and self._may_be_single(code):
                try:
                    result = self._ask_single(conn, question)
                    self._skipped.pop(code, None)
                    return result
                except MoreThanOne as wanted:
                    wanted.__traceback__ = None  # a frame of SQLAlchemy in it refers to the error: a reference cycle
                    self._skip(code)
            with conn.begin():
                access_tree.begin(conn, reads=True)
                return question(conn)

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()
        self._for_fibers.close()

    def _may_be_single(self, code: CodeType) -> bool:
        left, most = self._skipped.get(code, (0, 2))
        if not left:
            return True
        self._skipped[code] = (left - 1, most)
        return False

    def _skip(self, code: CodeType) -> None:
        _, most = self._skipped.get(code, (0, 2))
        self._skipped[code] = (most, min(2 * most, MAX_SKIPPED))

    def _ask_single(self, conn: Connection, question: Callable[[Connection], T]) -> T:
        with conn.begin(), conn.connection.driver_connection.single_statement():  # type: ignore[union-attr]
            access_tree.begin(conn, reads=True)
            return question(conn)
