"""Alterations of rows past Keyrack, in a transaction that is undone at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection

from keyrack.core.instance import Instance
from keyrack.store.sealing import access_tree, sums


class DatabaseInTransaction:
    """The database as it is within one transaction, that is undone in the end."""

    def __init__(self, instance: Instance, connection: Connection) -> None:
        self.seals = instance.database.seals
        self._connection = connection

    def read(self, question: Callable[[Connection], Any]) -> Any:
        access_tree.begin(self._connection, reads=True)
        return question(self._connection)

    def write(self, command: Callable[[Connection], Any], *, workspace_lock: int | None = None) -> Any:
        sums.begin_counting(self._connection)
        with self._connection.begin_nested():
            result = command(self._connection)
            sums.settle(self._connection)
        return result


class Undo(Exception):
    """Ends a write so that nothing of it stays."""
