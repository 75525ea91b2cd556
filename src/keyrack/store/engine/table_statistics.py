"""Has PostgreSQL ANALYZE tables that grew since it last did, as its plans follow from that; must know no table.

A new database's plans are made for empty tables. Its own autovacuum runs once a minute, or never where somebody turned
it off: until then a question for one key of a server reads all keys of that server.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import sql

log = logging.getLogger(__name__)

FIRST_CHECK = 256
"""So many changes of this process come before the first check, twice as many before the second, and so on."""
MAX_BETWEEN_CHECKS = 1024
"""But never more from one check to the next: a table may begin to grow late, when others have grown for long, and until
it is analyzed, reading a page of its rows sorts all rows that a user has.
"""
PAUSES = (1.5, 11.0)
"""Seconds from these changes to the check, and to a second one: a session reports its writes to the server's statistics
once a second, and the last of them after ten idle seconds.
"""

# As autovacuum has it, which acts at a tenth: a table that it analyzes in time is not analyzed here too.
_GROWN_TABLES = """
    SELECT relname FROM pg_stat_user_tables
    WHERE schemaname = current_schema() AND n_mod_since_analyze > 50 + n_live_tup / 2
      AND pg_has_role((SELECT relowner FROM pg_class WHERE oid = relid), 'USAGE')
    ORDER BY relname
"""


class TableStatistics:
    """Counts a process's changes, and analyzes grown tables in a thread that ends with the check."""

    def __init__(self, connect: Callable[[], psycopg.Connection[Any]]) -> None:
        """connect: makes a connection in autocommit."""
        self._connect = connect
        self._gate = threading.Lock()
        self._changes, self._next = 0, FIRST_CHECK
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def changed(self, count: int) -> None:
        """Count so many committed changes; returns at once. Raises nothing, as they are committed."""
        self._changes += count  # threads may overwrite each other's: an estimate is enough
        if self._changes < self._next:
            return
        with self._gate:
            if self._changes >= self._next and not self._closing.is_set() and not self._is_running():
                self._next = self._changes + min(self._changes, MAX_BETWEEN_CHECKS)
                self._start()

    def close(self) -> None:
        """Check no more; waits for a running check."""
        with self._gate:
            self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def _start(self) -> None:
        thread = threading.Thread(target=self._analyze_grown_tables, name="keyrack-statistics", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system has no thread left; a later change tries again
            log.info("Tables that grew could not be analyzed: %s", error)
        else:
            self._thread = thread

    def _is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _analyze_grown_tables(self) -> None:
        for pause in PAUSES:
            if self._closing.wait(pause):
                return
            try:
                with self._connect() as raw:
                    for (name,) in raw.execute(_GROWN_TABLES).fetchall():
                        if self._closing.is_set():
                            return
                        raw.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(name)))
            except psycopg.Error as error:  # autovacuum does it later
                log.info("Tables that grew could not be analyzed: %s", error)
