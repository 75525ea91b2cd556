"""Rows of servers that several commands of one transaction raise one after another, written and sealed once; must know
no command.

Each key that is entered raises its server's revision, and changes the sum of its rows. Where the next command knows the
row from the one before it, and asks for no other, only the last state need be written. Whoever lets commands hold rows
says before each whether it may, and has them written at the end; else each is written at once, as ever.
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


@dataclass(slots=True)
class _Raised:
    before: Row
    row: Row
    """What it is to be; its sum and seal are made as it is written."""
    columns: tuple[str, ...]
    added: int = 0


@dataclass(slots=True)
class _Held:
    may: bool = False
    rows: dict[int, _Raised] = field(default_factory=dict)
    written: int = 0


@contextmanager
def holding(connection: Connection) -> Iterator[None]:
    """Within it, in this transaction, rows may be held; what is not written at its end is forgotten with that."""
    info = connection.info  # which a connection that broke has no more
    info[_HELD] = _Held()
    try:
        yield
    finally:
        info.pop(_HELD, None)


def let(connection: Connection, may: bool) -> None:
    """Whether the next command may hold rows, and asks of servers by what it looked ahead or after write(); for another
    one all are written.
    """
    held: _Held = connection.info[_HELD]
    held.may = may
    if not may:
        write(connection)


def may_hold(connection: Connection) -> bool:
    """Whether the command under way may."""
    held: _Held | None = connection.info.get(_HELD)
    return held is not None and held.may


def hold(connection: Connection, before: Row, values: Mapping[str, Any]) -> None:
    """Set columns of a server later, with what was counted of its rows; before: as it was read, locked, or as held."""
    rows = connection.info[_HELD].rows
    raised: _Raised | None = rows.get(before["id"])
    if raised is None:
        raised = rows[before["id"]] = _Raised(before, Row(before), tuple(values))
    elif raised.row["revision"] != before["revision"]:
        raise RuntimeError("A server's row was held, and read without it.")
    raised.row.update(values)
    raised.added += sums.taken(connection, before["id"])


def held(connection: Connection, server_id: int) -> Mapping[str, Any] | None:
    """A server's row as it is held; it goes on as this very object, and has its seal once it is written."""
    rows: Mapping[int, _Raised] = connection.info[_HELD].rows
    raised = rows.get(server_id)
    return None if raised is None else raised.row


def write(connection: Connection) -> None:
    """Write what is held; to be called before anything else asks for a server's row."""
    held: _Held | None = connection.info.get(_HELD)
    if held is None or not held.rows:
        return
    rows, held.rows = held.rows, {}
    held.written += len(rows)
    for number, raised in rows.items():
        sums.put_back(connection, number, raised.added)
    written = sealed_sets.change_servers(
        connection,
        [raised.before for _, raised in sorted(rows.items())],
        lambda old: {name: rows[old["id"]].row[name] for name in rows[old["id"]].columns},
    )
    for row in written:
        rows[row["id"]].row.update(row)


def written(connection: Connection) -> int:
    """How many statements that took in this transaction so far."""
    held: _Held = connection.info[_HELD]
    return held.written
