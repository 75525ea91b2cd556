"""Looks for rows that others deleted, and receipts that they entered or took away, a little at a time and without
anybody asking; must mend nothing itself.

A row that was changed, or put back, is found where it is read. One that is not there any more is not read: what
counted it is looked through for that, the tree of what decides (store/sealing/access_tree.py) and each server's sum.
A receipt that no host gave is withdrawn by core/keys/receipts.py.
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
"""Of processor time at a time; for what one step takes more, it waits all the longer."""
OF_A_CORE = 0.005
PAUSE_SECONDS = 60.0
"""From the end of one look through everything to the beginning of the next one."""
NODES = 16
SERVERS = 16


class MissingRows:
    """Goes through all that is counted, again and again; what is missing becomes an alarm (core/altered_rows.py)."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = clock()
        self._node: int | None = tree_nodes.ROOT
        self._server = 0
        self._false: list[int] = []

    def go_on(self, instance: Instance) -> bool:
        """Look on as long as the budget lasts; whether everything was looked through. Raises DatabaseUnavailable."""
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
        self._next = self._clock() + spent / OF_A_CORE
        return False

    def _some(self, connection: Connection) -> bool:
        if self._node is not None:
            self._node = sealed_tables.scan_nodes(connection, self._node, NODES)
            return False
        server_ids = servers.ids_after(connection, self._server, SERVERS)
        with batch(connection, server_ids):
            for server_id in server_ids:
                servers.complete(connection, server_id)
        self._false = sorted(applied.altered(connection, server_ids))
        self._server = server_ids[-1] if server_ids else 0
        return len(server_ids) < SERVERS
