"""The lengths of lists, which the database counts again only if the rows may have changed; must know no table.

A page says how many rows there are on all pages, and counting takes time with each row. So a count is kept with a mark
that was read beside it: a value that Keyrack changes, random or sealed, in each transaction that changes such rows. The
next question passes the mark, and the statement that reads the page counts only if the database has another one by now.
So no outdated count is answered.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, case, null

from keyrack.store.sealing import access_tree
from keyrack.store.sealing.seals import seals_of

MAX = 10_000
"""How many counts are kept, some 700 bytes each."""
NO_MARK = b""
"""What is passed if no count is kept: no mark is empty."""


class Counted(NamedTuple):
    """A count and the mark that was read with it."""

    mark: bytes
    rows: int


NOT_COUNTED = Counted(NO_MARK, 0)


def known(connection: Connection, of: Hashable) -> Counted:
    """The kept count of a list, or NOT_COUNTED; of: identifies the question with all that its count depends on besides
    the marked rows. NOT_COUNTED within a command, as it changes the mark only at its end.
    """
    return seals_of(connection).counts.get(of, NOT_COUNTED) if _only_reads(connection) else NOT_COUNTED


def columns(mark: Any, handed_in: Any, rows: Select[Any]) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """Two columns for a question: the mark and the count, both NULL if the mark is the one that was handed in.

    handed_in: None if no mark is used; rows: a question for the count.
    """
    count = rows.correlate(None).scalar_subquery()
    if handed_in is None:
        return null().label("mark"), count.label("total")
    same = mark == handed_in
    return case((same, null()), else_=mark).label("mark"), case((same, null()), else_=count).label("total")


def taken(connection: Connection, of: Hashable, before: Counted, mark: bytes | None, total: int | None) -> int:
    """The count by what those two columns answered, which is kept for the next time; before: what `known` answered.

    mark: None if it is not certain to change with each change of the rows.
    """
    if total is None:
        return before.rows
    if isinstance(mark, bytes) and mark and _only_reads(connection):
        counts = seals_of(connection).counts
        if len(counts) >= MAX:
            counts.clear()
        counts[of] = Counted(mark, total)
    return total


def _only_reads(connection: Connection) -> bool:
    return bool(connection.info.get(access_tree.READS, False))
