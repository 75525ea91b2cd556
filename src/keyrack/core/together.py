"""Several commands in one transaction, all or nothing; must know no command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar, cast

from sqlalchemy import Connection

from keyrack.core.instance import Instance
from keyrack.core.work import Work
from keyrack.store.database import Database, Prefetch, lock_workspace
from keyrack.store.engine.execute import savepoint
from keyrack.store.sealing import sums

T = TypeVar("T")


class _Joined:
    """Stands in for the database of commands: runs them on a connection whose transaction the caller ends."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def read(self, question: Callable[[Connection], T]) -> T:
        return question(self._connection)

    def write(
        self,
        command: Callable[[Connection], T],
        *,
        workspace_lock: int | None = None,
        prefetch: Prefetch | None = None,
        defers_tree: bool = False,
    ) -> T:
        # What a command raises must undo it before it is tried again, see Attempt.write.
        with sums.counting(self._connection), savepoint(self._connection):
            if workspace_lock is not None:
                lock_workspace(self._connection, workspace_lock)
            return command(self._connection)


def within(work: Work) -> Instance:
    """The instance of a unit of work, whose database is that unit's own transaction.

    Commands that get it read what the unit wrote. What they write, and the events of their refusals, commit with the
    unit or not at all.
    """
    return replace(work.instance, database=cast(Database, _Joined(work.connection)), joined=True)
