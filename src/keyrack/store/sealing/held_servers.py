"""Defers writing the rows of servers that several commands of one transaction change one after another, so that each is
sealed and written once; must know no command.

Each key that is entered raises its server's revision, and changes the sum of its rows. Where the next command takes the
row from the one before it, and reads no other from the database, only the last state need be written. The code that
runs the commands says before each whether it may hold rows, and calls write() at the end; else each row is written
immediately.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from keyrack.store.engine.prepared import Row
from keyrack.store.sealing import sealed_sets, sums

_HELD = "keyrack held servers"


@dataclass(frozen=True, slots=True)
class _HeldRow:
    before: Row
    """As it is in the database."""
    row: Row
    """What it is to be; its sum and seal are made as it is written."""
    columns: tuple[str, ...]
    added: int
    """What was counted of the server's rows meanwhile (sums.py)."""


@dataclass(slots=True)
class _Held:
    may: bool = False
    """Whether the command under way may hold rows."""
    rows: dict[int, _HeldRow] = field(default_factory=dict)
    written: int = 0


@contextmanager
def holding(connection: Connection) -> Iterator[None]:
    """A block of this transaction in which rows may be held; rows that are not written by its end are dropped."""
    info = connection.info  # which a connection that broke has no more
    info[_HELD] = _Held()
    try:
        yield
    finally:
        info.pop(_HELD, None)


def begin_command(connection: Connection, *, may_hold: bool) -> None:
    """Before each command. may_hold: it reads servers' rows only by a question that was asked ahead, or after write();
    for one that reads others all that is held is written first.
    """
    held: _Held = connection.info[_HELD]
    held.may = may_hold
    if not may_hold:
        write(connection)


def may_hold(connection: Connection) -> bool:
    """Whether the running command may hold rows."""
    held: _Held | None = connection.info.get(_HELD)
    return held is not None and held.may


def hold(connection: Connection, before: Row, values: Mapping[str, Any]) -> None:
    """Set columns of a server later, with what was counted of its rows; before: as it was read, locked, or as held."""
    number, rows = before["id"], connection.info[_HELD].rows
    last: _HeldRow | None = rows.get(number)
    if last is not None and last.row["revision"] != before["revision"]:
        raise RuntimeError("A server's row was held, and read without it.")
    added = sums.taken(connection, number)
    # As new ones each time, so that what is held now can be held again (as_held).
    if last is None:
        rows[number] = _HeldRow(before, Row({**before, **values}), tuple(values), added)
    else:
        rows[number] = _HeldRow(last.before, Row({**last.row, **values}), last.columns, last.added + added)


def held(connection: Connection, server_id: int) -> Mapping[str, Any] | None:
    """A server's row as it is held; this very object has its seal once it is written, unless it was held anew."""
    held: _Held | None = connection.info.get(_HELD)
    held_row = None if held is None else held.rows.get(server_id)
    return None if held_row is None else held_row.row


def as_held(connection: Connection) -> Mapping[int, Any]:
    """All that is held, to be held again where what comes next is undone."""
    return dict(connection.info[_HELD].rows)


def hold_again(connection: Connection, rows: Mapping[int, Any]) -> None:
    """Go back to what was held, where the database goes back to what it was then."""
    connection.info[_HELD].rows = dict(rows)


def write(connection: Connection) -> None:
    """Write what is held; to be called before anything else asks for a server's row."""
    held: _Held | None = connection.info.get(_HELD)
    if held is None or not held.rows:
        return
    rows, held.rows = held.rows, {}
    held.written += len(rows)
    for number, one in rows.items():
        sums.put_back(connection, number, one.added)
    written = sealed_sets.change_servers(
        connection,
        [one.before for _, one in sorted(rows.items())],
        lambda old: {name: rows[old["id"]].row[name] for name in rows[old["id"]].columns},
    )
    for row in written:
        rows[row["id"]].row.update(row)


def written(connection: Connection) -> int:
    """How many statements that took in this transaction so far."""
    held: _Held = connection.info[_HELD]
    return held.written
