"""Bounds how long to wait for an answer of PostgreSQL; must know no statement.

The system gives up a network that carries nothing (see connect.py). It does not notice a server that hangs, because its
disk hangs or its machine is suspended, nor a proxy before it that accepts bytes without end. Who waits for such a
server would keep a connection, and the lock of a workspace, for as long as it hangs.
"""

from __future__ import annotations

import time
from typing import Any

import psycopg
from psycopg.abc import PQGen
from psycopg.pq.abc import PGconn

SECONDS = 60.0
"""Longer than a statement waits for a lock of another session (LOCK_SECONDS), such as that of a workspace."""


class Silent(psycopg.OperationalError):
    """The server sent nothing for SECONDS, so the connection was closed."""

    def __init__(self) -> None:
        super().__init__(f"the server said nothing for {SECONDS:g} seconds")


def give_up(pgconn: PGconn) -> Silent:
    """Close a connection on which nothing came; returns the error to be raised."""
    pgconn.finish()
    return Silent()


class BoundedConnection(psycopg.Connection[Any]):
    """A psycopg connection that waits at most SECONDS for an answer."""

    patient = False
    """Whether it waits without a bound, as migrations have to."""

    def wait(self, gen: PQGen[Any], *args: Any, **options: Any) -> Any:
        """As psycopg's. Raises Silent."""
        return super().wait(gen if self.patient else self._bounded(gen), *args, **options)

    def _bounded(self, gen: PQGen[Any]) -> PQGen[Any]:
        """The same generator, which raises Silent after too long. psycopg resumes it several times a second."""
        try:
            wanted = next(gen)
            since = time.monotonic()
            while True:
                ready = yield wanted
                if ready:
                    since = time.monotonic()
                elif time.monotonic() - since > SECONDS:
                    raise give_up(self.pgconn)
                wanted = gen.send(ready)
        except StopIteration as ended:
            return ended.value
