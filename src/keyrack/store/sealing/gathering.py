"""What commands of one transaction leave to its end, to be written once for all of them: rows of servers, and what the
tree counts; must know no command.

Each key of a user changes a path of six nodes, from the leaf to the root, and each on a server that server's row
(held_servers.py). A command that says so, and asks for neither by itself, leaves that to whoever runs several in one
transaction; before any other command it is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from keyrack.store.sealing import access_tree, held_servers, sums
from keyrack.store.sealing.tree_nodes import Place, SumChange


@dataclass(frozen=True, slots=True)
class Left:
    """What was left to the end so far: rows of servers, as held_servers holds them, and places of the tree."""

    servers: Mapping[int, Any] = field(default_factory=dict)
    places: Mapping[Place, SumChange] = field(default_factory=dict)


class Gathering:
    """The commands of one transaction, one after another, within held_servers.holding()."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._gathers = False
        self._places: Mapping[Place, SumChange] = {}

    def begin(self, *, holds: bool, gathers: bool) -> None:
        """Before a command. holds: it may hold rows of servers, as held_servers.begin_command has it; gathers: it reads
        no node of the tree by itself, so that what it changes there may be written with what others change.
        """
        held_servers.begin_command(self._connection, may_hold=holds)
        if not gathers:
            self._count()
        self._gathers = gathers
        sums.begin_counting(self._connection, self._places)

    def settle(self) -> None:
        """After a command that went well: bring what it changed into sums of servers and, unless later, the tree."""
        sums.settle_servers(self._connection)
        if self._gathers:
            self._places = access_tree.pending(self._connection)
        else:
            access_tree.settle(self._connection)

    @property
    def left(self) -> Left:
        """What is left to the end just now; it is set again where the database goes back to what it was then."""
        return Left(held_servers.as_held(self._connection), self._places)

    @left.setter
    def left(self, left: Left) -> None:
        """Have this be left again."""
        held_servers.hold_again(self._connection, left.servers)
        self._places = left.places

    def write(self) -> None:
        """Write what was left; to be called before the commit."""
        held_servers.write(self._connection)
        self._count()

    def _count(self) -> None:
        places, self._places = self._places, {}
        if places:
            sums.begin_counting(self._connection, places)
            access_tree.settle(self._connection)
