"""Writes that the commands of one transaction defer, to be made once at its end: rows of servers, and nodes of the
access tree; must know no command.

Each added user key changes six nodes, from the lowest to the root; each key on a server changes that server's row
(held_servers.py). A command that reads neither itself can leave these writes to the code that runs several commands in
one transaction. Before any other command the deferred writes are made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from keyrack.store.sealing import access_tree, held_servers, sums
from keyrack.store.sealing.tree_nodes import Place, SumChange


@dataclass(frozen=True, slots=True)
class Deferred:
    """What is deferred: rows of servers (held_servers.as_held) and changes of the tree, by place."""

    servers: Mapping[int, Any] = field(default_factory=dict)
    places: Mapping[Place, SumChange] = field(default_factory=dict)


class DeferredWrites:
    """Runs before and after each command of one transaction, within held_servers.holding()."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._defers_tree = False
        self._places: Mapping[Place, SumChange] = {}

    def begin(self, *, may_hold: bool, defers_tree: bool) -> None:
        """To be called before a command. may_hold: see held_servers.begin_command; defers_tree: it reads no node of the
        tree, so that its changes there may be written with those of later commands.
        """
        held_servers.begin_command(self._connection, may_hold=may_hold)
        if not defers_tree:
            self._count()
        self._defers_tree = defers_tree
        sums.begin_counting(self._connection, self._places)

    def settle(self) -> None:
        """To be called after a command that succeeded: write its changes of sums and, unless deferred, of the tree."""
        sums.settle_servers(self._connection)
        if self._defers_tree:
            self._places = access_tree.pending(self._connection)
        else:
            access_tree.settle(self._connection)

    @property
    def deferred(self) -> Deferred:
        """What is deferred now; to be set again after a rollback to this point."""
        return Deferred(held_servers.as_held(self._connection), self._places)

    @deferred.setter
    def deferred(self, deferred: Deferred) -> None:
        """Restore what was deferred, after a rollback."""
        held_servers.hold_again(self._connection, deferred.servers)
        self._places = deferred.places

    def write(self) -> None:
        """Make the deferred writes; to be called before the commit."""
        held_servers.write(self._connection)
        self._count()

    def _count(self) -> None:
        places, self._places = self._places, {}
        if places:
            sums.begin_counting(self._connection, places)
            access_tree.settle(self._connection)
