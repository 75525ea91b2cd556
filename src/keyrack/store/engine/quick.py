"""Caches attributes of a SQLAlchemy connection while a transaction is open; must know no table.

Each question reads the connection's `info`, the driver's connection and whether a transaction is open: a hundred times
in a command of four questions. SQLAlchemy computes each of them anew every time.
"""

from __future__ import annotations

from typing import Any, cast

from sqlalchemy import Connection


class _Quick:
    """The often read attributes are cached; everything else is passed on to SQLAlchemy's connection."""

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
    """The connection with cached attributes; to be used only until its transaction ends or it breaks."""
    return cast(Connection, _Quick(connection))
