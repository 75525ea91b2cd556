"""Looks for rows that others deleted, and for receipts that others wrote or deleted, a little at a time; must repair
nothing itself.

Altered rows are found when they are read, but deleted rows are never read. So this scans what counts rows: the tree in
store/sealing/access_tree.py and each server's sum. core/keys/receipts.py withdraws false receipts.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import Connection

from keyrack.core.instance import Instance
from keyrack.core.keys import receipts
from keyrack.store.hosts import applied, servers
from keyrack.store.per_server import batch
from keyrack.store.sealing import sealed_tables, tree_nodes

BUDGET_SECONDS = 0.025
"""Processor time for one call; after a longer one the pause is longer too."""
CPU_SHARE = 0.005
"""The share of one processor that this may take."""
PAUSE_SECONDS = 60.0
"""From the end of one pass through everything to the start of the next."""
NODES_PER_STEP = 16
SERVERS_PER_STEP = 16


class MissingRows:
    """Scans all that is counted, again and again; a missing row becomes an alarm (core/altered_rows.py)."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = clock()
        self._node: int | None = tree_nodes.ROOT
        self._server = 0
        self._false: list[int] = []

    def go_on(self, instance: Instance) -> bool:
        """Continue within the budget; returns whether a pass has ended. Raises DatabaseUnavailable."""
        if self._clock() < self._next:
            return False
        began = time.thread_time()
        while (spent := time.thread_time() - began) < BUDGET_SECONDS:
            done = instance.database.read(self._some)
            if self._false:
                receipts.withdraw(instance, self._false)
                self._false = []
            if done:
                self._node, self._server = tree_nodes.ROOT, 0
                self._next = self._clock() + PAUSE_SECONDS
                return True
        self._next = self._clock() + spent / CPU_SHARE
        return False

    def _some(self, connection: Connection) -> bool:
        if self._node is not None:
            self._node = sealed_tables.scan_nodes(connection, self._node, NODES_PER_STEP)
            return False
        server_ids = servers.ids_after(connection, self._server, SERVERS_PER_STEP)
        with batch(connection, server_ids):
            for server_id in server_ids:
                servers.complete(connection, server_id)
        self._false = sorted(applied.altered(connection, server_ids))
        self._server = server_ids[-1] if server_ids else 0
        return len(server_ids) < SERVERS_PER_STEP
