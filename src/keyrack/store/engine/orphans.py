"""Ends Keyrack's sessions in PostgreSQL whose process is stopped in the middle of a change; must end no session of
another program, and none that still works.

PostgreSQL's own bound (postgresql_session.py) ends a session that is idle within a transaction. A session whose process
sent statements ahead and then was stopped counts as active instead, for as long as the process is stopped, and what the
change has locked stays locked.
"""

from __future__ import annotations

import logging
import time

from sqlalchemy import Connection

from keyrack.store.engine.postgresql_session import ORPHAN_SECONDS

log = logging.getLogger(__name__)

CHECK_SECONDS = 20.0
"""From one check to the next, at least."""
# A statement that begins changes state_change. A role sees this of its own sessions, and may end them.
_WAITING = """
    SELECT pid, backend_start, state_change FROM pg_stat_activity
    WHERE application_name = 'keyrack' AND usename = current_user AND datname = current_database()
      AND pid <> pg_backend_pid() AND state = 'active' AND xact_start IS NOT NULL
      AND wait_event_type = 'Client' AND wait_event = 'ClientRead'
"""
_END = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE pid = %s AND backend_start = %s AND state_change = %s AND wait_event = 'ClientRead'
"""

_Session = tuple[int, object, object]


class OrphanedSessions:
    """The sessions that wait for their process, and since when; used by one thread, which checks again and again."""

    def __init__(self) -> None:
        self._next = 0.0
        self._since: dict[_Session, float] = {}

    def end(self, connection: Connection) -> int:
        """End the sessions that have waited for their process for ORPHAN_SECONDS, where CHECK_SECONDS have passed since
        the last check; answers how many. Does nothing on SQLite, where a stopped process is waited for (decision 444).
        """
        now = time.monotonic()
        if connection.dialect.name != "postgresql" or now < self._next:
            return 0
        self._next = now + CHECK_SECONDS
        # Not by how long ago the statement began: it may have worked until just now.
        rows = connection.exec_driver_sql(_WAITING).all()
        waiting: list[_Session] = [(row.pid, row.backend_start, row.state_change) for row in rows]
        self._since = {one: self._since.get(one, now) for one in waiting}
        ended = 0
        for one, since in self._since.items():
            if now - since >= ORPHAN_SECONDS:
                ended += self._end(connection, one)
        return ended

    def _end(self, connection: Connection, session: _Session) -> bool:
        if not connection.exec_driver_sql(_END, session).scalar():
            return False
        log.warning(
            "A change was undone: the process that made it stood still for more than %d seconds, and kept others "
            "waiting (its session was PostgreSQL's process %d).",
            ORPHAN_SECONDS,
            session[0],
        )
        return True
