"""How long lists are, counted by the database only where its rows may be others than before; must know no table.

A page says how many rows there are on all pages, and to count them costs what the list is long. So beside a count is
kept a mark that was read with it: something which Keyrack writes anew, by chance or sealed, with each change of such
rows, in the same transaction. The next question hands the mark in. In the very statement that reads the page the
database compares it, and counts only where its own is another one. Nothing is answered that it does not know to be so.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, case, null

from keyrack.store.sealing import access_tree
from keyrack.store.sealing.seals import seals_of

MAX = 10_000
"""Counts that are kept; some 700 bytes each."""
NO_MARK = b""
"""What is handed in where nothing is known: no mark is empty."""


class Counted(NamedTuple):
    """A count, and the mark beside which it was read."""

    mark: bytes
    rows: int


NOT_COUNTED = Counted(NO_MARK, 0)


def known(connection: Connection, of: Hashable) -> Counted:
    """What is known of a list; of: names the question with all that its count depends on besides the marked rows.

    Nothing within a command, which marks what it changed at its end alone.
    """
    return seals_of(connection).counts.get(of, NOT_COUNTED) if _only_reads(connection) else NOT_COUNTED


def columns(mark: Any, handed_in: Any, rows: Select[Any]) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """Two columns of a question: the mark and the count, each empty where that mark is the one that was handed in.

    handed_in: None where the rows have no mark; rows: a question for the count.
    """
    count = rows.correlate(None).scalar_subquery()
    if handed_in is None:
        return null().label("mark"), count.label("total")
    same = mark == handed_in
    return case((same, null()), else_=mark).label("mark"), case((same, null()), else_=count).label("total")


def taken(connection: Connection, of: Hashable, before: Counted, mark: bytes | None, total: int | None) -> int:
    """The count, of what those two columns answered, kept for the next time; before: as `known` said.

    mark: None where the rows have none that is sure to be another one after each change.
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
