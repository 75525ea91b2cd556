"""Questions about one server that are asked once for all servers of a batch; must know no table."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from sqlalchemy import Connection, Executable

from keyrack.store.engine.prepared import CompiledStatement, Prepared, Row

P = ParamSpec("P")
T = TypeVar("T")

_BATCH = "keyrack batch"


class _Batch:
    """The servers of a batch, and what was asked about them so far."""

    def __init__(self, server_ids: Iterable[int]) -> None:
        self.server_ids = tuple(server_ids)
        self.known = frozenset(self.server_ids)
        self.answers: dict[Any, tuple[CompiledStatement, dict[int, list[tuple[Any, ...]]]]] = {}
        self.shared: dict[Any, Any] = {}


@contextmanager
def batch(connection: Connection, server_ids: Iterable[int]) -> Iterator[None]:
    """Inside this block, each PerServer question about one of these servers is asked for all of them at once. For one
    transaction that only reads.
    """
    info = connection.info  # kept, as a connection that broke no longer has it
    info[_BATCH] = _Batch(server_ids)
    try:
        yield
    finally:
        info.pop(_BATCH, None)


def shared(connection: Connection, server_id: int, name: Hashable, ask: Callable[[tuple[int, ...]], T]) -> T | None:
    """The answer to a question that is asked once for all servers of the batch; None if this server is in no batch.

    name: identifies the question with its arguments; ask: called with the ids of all servers of the batch.
    """
    asked: _Batch | None = connection.info.get(_BATCH)
    if asked is None or server_id not in asked.known:
        return None
    if name not in asked.shared:
        asked.shared[name] = ask(asked.server_ids)
    answer: T = asked.shared[name]
    return answer


class PerServer(Generic[P]):
    """A prepared question about one server, whose statement asks about several and has a column server_id."""

    def __init__(self, make: Callable[Concatenate[Any, P], Executable]) -> None:
        self.__doc__ = make.__doc__
        self._question: Prepared[...] = Prepared(make)

    def rows(self, connection: Connection, server_id: int, *args: P.args, **kwargs: P.kwargs) -> list[Row]:
        """The rows of this server, in the order of the statement."""
        plan, rows = self.raw(connection, server_id, *args, **kwargs)
        return [plan.row(values) for values in rows]

    def raw(
        self, connection: Connection, server_id: int, *args: P.args, **kwargs: P.kwargs
    ) -> tuple[CompiledStatement, list[tuple[Any, ...]]]:
        """The plan that reads the rows, and the rows as the driver returns them."""
        asked: _Batch | None = connection.info.get(_BATCH)
        if asked is None or server_id not in asked.known:
            return self._question.raw(connection, (server_id,), *args, **kwargs)
        name = (self, args, tuple(kwargs.items()))
        known = asked.answers.get(name)
        if known is None:
            plan, rows = self._question.raw(connection, asked.server_ids, *args, **kwargs)
            at = plan.names.index("server_id")
            by_server: dict[int, list[tuple[Any, ...]]] = {}
            for values in rows:
                by_server.setdefault(values[at], []).append(values)
            known = asked.answers[name] = plan, by_server
        return known[0], known[1].get(server_id, [])


def per_server(make: Callable[Concatenate[Any, P], Executable]) -> PerServer[P]:
    """A question about one server. make: returns a statement about several servers, compared by `among`, with the order
    that the rows of each server are to have.
    """
    return PerServer(make)
