"""Defers writing the rows of servers that several commands of one transaction change, so that each is sealed and
written once; must know no command.

Each key that is entered raises its server's revision and changes the server's sum. If the next command takes the row
from memory and does not read it from the database, only the last state needs to be written. The code that runs the
commands says before each whether it may hold rows (defer their writes), and calls write() at the end. Outside of
holding(), or where a command may not hold rows, each row is written immediately.
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
    """The row in the database."""
    row: Row
    """The row to be written; its sum and seal are computed then."""
    columns: tuple[str, ...]
    added: int
    """The change of the server's sum so far (sums.taken)."""


@dataclass(slots=True)
class _Held:
    may: bool = False
    """Whether the running command may hold rows."""
    rows: dict[int, _HeldRow] = field(default_factory=dict)
    written: int = 0


@contextmanager
def holding(connection: Connection) -> Iterator[None]:
    """A block of this transaction in which rows may be held; rows that are not written by its end are dropped."""
    info = connection.info  # kept here, as a broken connection no longer has it
    info[_HELD] = _Held()
    try:
        yield
    finally:
        info.pop(_HELD, None)


def begin_command(connection: Connection, *, may_hold: bool) -> None:
    """To be called before each command. may_hold: the command reads servers' rows only by its prefetched query or after
    write(); before any other command all held rows are written.
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
    """Defer setting columns of a server, and the pending change of its sum; before: its row as read with a lock, or as
    held() returned it.
    """
    number, rows = before["id"], connection.info[_HELD].rows
    last: _HeldRow | None = rows.get(number)
    if last is not None and last.row["revision"] != before["revision"]:
        raise RuntimeError("A server's row was read from the database while a newer one was held.")
    added = sums.taken(connection, number)
    # A new object each time, so that an earlier state can be restored (as_held, hold_again).
    if last is None:
        rows[number] = _HeldRow(before, Row({**before, **values}), tuple(values), added)
    else:
        rows[number] = _HeldRow(last.before, Row({**last.row, **values}), last.columns, last.added + added)


def held(connection: Connection, server_id: int) -> Mapping[str, Any] | None:
    """A server's held row, None for none; write() puts the seal into this object, unless a newer one is held."""
    held: _Held | None = connection.info.get(_HELD)
    held_row = None if held is None else held.rows.get(server_id)
    return None if held_row is None else held_row.row


def as_held(connection: Connection) -> Mapping[int, Any]:
    """The held rows, to be given to hold_again if the next command is rolled back."""
    return dict(connection.info[_HELD].rows)


def hold_again(connection: Connection, rows: Mapping[int, Any]) -> None:
    """Restore the held rows after a rollback to the savepoint at which as_held returned them."""
    connection.info[_HELD].rows = dict(rows)


def write(connection: Connection) -> None:
    """Write the held rows; to be called before anything else reads a server's row."""
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
    """How many rows write() has written in this transaction."""
    held: _Held = connection.info[_HELD]
    return held.written
