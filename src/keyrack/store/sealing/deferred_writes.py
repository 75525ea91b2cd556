"""Writes that the commands of one transaction defer to its end, to be made once for all: rows of servers, and nodes of
the access tree; must know no command.

Each key of a user changes a path of six nodes, from the leaf to the root, and each on a server that server's row
(held_servers.py). A command that allows it, and reads neither by itself, leaves these writes to the code that runs
several commands in one transaction; before any other command they are made.
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
    """What was deferred so far: rows of servers, as held_servers holds them, and places of the tree."""

    servers: Mapping[int, Any] = field(default_factory=dict)
    places: Mapping[Place, SumChange] = field(default_factory=dict)


class DeferredWrites:
    """The commands of one transaction, one after another, within held_servers.holding()."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._defers_tree = False
        self._places: Mapping[Place, SumChange] = {}

    def begin(self, *, may_hold: bool, defers_tree: bool) -> None:
        """Before a command. may_hold: it may hold rows of servers, see held_servers.begin_command; defers_tree: it
        reads no node of the tree by itself, so that what it changes there may be written with what others change.
        """
        held_servers.begin_command(self._connection, may_hold=may_hold)
        if not defers_tree:
            self._count()
        self._defers_tree = defers_tree
        sums.begin_counting(self._connection, self._places)

    def settle(self) -> None:
        """After a command that went well: bring what it changed into sums of servers and, unless later, the tree."""
        sums.settle_servers(self._connection)
        if self._defers_tree:
            self._places = access_tree.pending(self._connection)
        else:
            access_tree.settle(self._connection)

    @property
    def deferred(self) -> Deferred:
        """What is deferred just now; it is set again where the database goes back to what it was then."""
        return Deferred(held_servers.as_held(self._connection), self._places)

    @deferred.setter
    def deferred(self, deferred: Deferred) -> None:
        """Go back to what was deferred then."""
        held_servers.hold_again(self._connection, deferred.servers)
        self._places = deferred.places

    def write(self) -> None:
        """Write what was deferred; to be called before the commit."""
        held_servers.write(self._connection)
        self._count()

    def _count(self) -> None:
        places, self._places = self._places, {}
        if places:
            sums.begin_counting(self._connection, places)
            access_tree.settle(self._connection)
