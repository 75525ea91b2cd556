"""Reads of one call in one transaction: all of it sees the same instant; must know no question."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from sqlalchemy import Connection

from keyrack.store import access_tree
from keyrack.store.engine.fibers import Fiber
from keyrack.store.engine.pool import Pool

T = TypeVar("T")


def begun(conn: Connection, question: Callable[[Connection], T]) -> T:
    """What a question answers, the first one of a transaction that only reads."""
    access_tree.begin(conn, reads=True)
    return question(conn)


class Snapshot:
    """What a fiber reads in until it writes: a connection and its transaction, from the first question on."""

    def __init__(self) -> None:
        self._open: ExitStack | None = None
        self._conn: Connection | None = None

    def read(self, readers: Pool, question: Callable[[Connection], T]) -> T:
        """What a question answers. Where it raises, the next one begins anew."""
        try:
            if self._open is None:
                self._open = ExitStack()
                self._conn = self._open.enter_context(readers.lend())
                self._open.enter_context(self._conn.begin())
                return begun(self._conn, question)
            assert self._conn is not None
            return question(self._conn)
        except BaseException as error:
            opened, self._open, self._conn = self._open, None, None
            if opened is not None:
                opened.__exit__(type(error), error, error.__traceback__)
            raise

    def end(self) -> None:
        """Let go of what it read in."""
        opened, self._open, self._conn = self._open, None, None
        if opened is not None:
            opened.close()


@contextmanager
def sharing(fiber: Fiber) -> Iterator[None]:
    """Within it all that the fiber reads is of one instant, or of one since it wrote."""
    fiber.snapshot = Snapshot()
    try:
        yield
    finally:
        end(fiber)
        fiber.snapshot = None


def end(fiber: Fiber) -> None:
    """What the fiber reads from now on is of a later instant."""
    if fiber.snapshot is not None:
        fiber.snapshot.end()
