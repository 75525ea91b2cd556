"""Bounds how long PostgreSQL may say nothing to who waits for its answer; must know no statement.

The system gives up a network that carries nothing (see connect.py). It knows nothing of a server that stands still, as
one whose disk hangs or whose machine is suspended does, nor of whatever stands before it and takes bytes without end.
Who waited for such a one would keep his connection, and the lock of his workspace, for as long as it stands.
"""

from __future__ import annotations

import time
from typing import Any

import psycopg
from psycopg.abc import PQGen
from psycopg.pq.abc import PGconn

SECONDS = 60.0
"""Longer than a statement waits for what another session locked (LOCK_SECONDS), a workspace's lock among it."""


class Silent(psycopg.OperationalError):
    """The server said nothing for so long that its answer is not waited for any more; the connection is closed."""

    def __init__(self) -> None:
        super().__init__(f"the server said nothing for {SECONDS:g} seconds")


def give_up(pgconn: PGconn) -> Silent:
    """Close a connection on which nothing came; the error to be raised."""
    pgconn.finish()
    return Silent()


class BoundedConnection(psycopg.Connection[Any]):
    """A connection of psycopg's that waits so long at most."""

    patient = False
    """Whether it waits for as long as it takes, as changes of tables do."""

    def wait(self, gen: PQGen[Any], *args: Any, **options: Any) -> Any:
        """As psycopg's. Raises Silent."""
        return super().wait(gen if self.patient else self._bounded(gen), *args, **options)

    def _bounded(self, gen: PQGen[Any]) -> PQGen[Any]:
        """The same steps, until nothing came for too long. psycopg wakes them several times a second."""
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
