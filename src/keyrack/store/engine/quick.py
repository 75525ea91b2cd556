"""A connection of SQLAlchemy's within a transaction, asked in fewer steps; must know no table.

Each question asks a connection for its `info`, for the driver's own connection and whether a transaction is open, a
hundred times in a command that asks four. SQLAlchemy finds that out anew each time.
"""

from __future__ import annotations

from typing import Any, cast

from sqlalchemy import Connection


class _Quick:
    """What each question asks of it is an attribute; all else is SQLAlchemy's as ever."""

    __slots__ = ("_whole", "connection", "dialect", "get_transaction", "info")

    def __init__(self, whole: Connection) -> None:
        self._whole = whole
        self.connection = whole.connection
        self.dialect = whole.dialect
        self.info = whole.info
        self.get_transaction = whole.get_transaction

    def in_transaction(self) -> bool:
        """True, as it is only used within one."""
        return True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)


def as_quick(connection: Connection) -> Connection:
    """The same connection, for as long as the transaction goes on that is open on it, and it does not break."""
    return cast(Connection, _Quick(connection))
