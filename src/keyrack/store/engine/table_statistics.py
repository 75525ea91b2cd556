"""Has PostgreSQL ANALYZE tables that grew since it last did, as its plans follow from that; must know no table.

A new database's plans are made for empty tables. Its own autovacuum looks once a minute, or never where somebody turned
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

FIRST_LOOK = 256
"""So many changes of this process come before the first look, twice as many before the second, and so on."""
MOST_APART = 1024
"""But never more from one look to the next: a table may begin to grow late, when others have grown for long, and until
it is looked at a page of its rows sorts all that a user has.
"""
PAUSES = (1.5, 11.0)
"""Seconds from these changes to the look, and to one more: the server counts what a session wrote once a second, and
the last of it after ten seconds at rest.
"""

# As autovacuum has it, which acts at a tenth: a table that it analyzes in time is not analyzed here too.
_GREW = """
    SELECT relname FROM pg_stat_user_tables
    WHERE schemaname = current_schema() AND n_mod_since_analyze > 50 + n_live_tup / 2
      AND pg_has_role((SELECT relowner FROM pg_class WHERE oid = relid), 'USAGE')
    ORDER BY relname
"""


class TableStatistics:
    """Counts a process's changes, and looks in a thread of its own that ends with the look."""

    def __init__(self, connect: Callable[[], psycopg.Connection[Any]]) -> None:
        """connect: makes a connection in autocommit."""
        self._connect = connect
        self._gate = threading.Lock()
        self._changes, self._next = 0, FIRST_LOOK
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def changed(self, count: int) -> None:
        """So many changes were committed; returns at once."""
        self._changes += count  # of several threads one may get lost: it is a measure, no account
        if self._changes < self._next:
            return
        with self._gate:
            if self._changes >= self._next and not self._closing.is_set() and not self._looking():
                self._next = self._changes + min(self._changes, MOST_APART)
                self._thread = threading.Thread(target=self._look, name="keyrack-statistics", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Look no more; waits for a look under way."""
        with self._gate:
            self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def _looking(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _look(self) -> None:
        for pause in PAUSES:
            if self._closing.wait(pause):
                return
            try:
                with self._connect() as raw:
                    for (name,) in raw.execute(_GREW).fetchall():
                        if self._closing.is_set():
                            return
                        raw.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(name)))
            except psycopg.Error as error:  # autovacuum does it later
                log.info("Tables that grew could not be analyzed: %s", error)
