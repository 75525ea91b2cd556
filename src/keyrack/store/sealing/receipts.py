"""What shows that a host acknowledged something: a keyed code beside it; must write no row and decide about nobody.

A report is written without the row that it concerns being sealed anew, so each receipt has a code of its own, made
once for all rows that a report acknowledges. Of a server it is over the revision that its host applied, the revision's
mark and the time; of keys to refuse and of people who were removed over the time, and how far the host has come. Each
row's own revision is under its seal, so a code that is put beside another row, or kept and put back, never says more
than the host did. One that is taken away shows by what the same host acknowledged after it (store/hosts/applied.py);
all of a host at once show by its server's row, which has under its seal that there was one.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Table

from keyrack.store.sealing import sealed
from keyrack.store.sealing.seals import AlteredHow, AlteredRow, Seals, is_ours, seals_of
from keyrack.store.tables import servers
from keyrack.store.tables.columns import as_microseconds

RECEIPT = "receipt"
NOTHING_APPLIED: Mapping[str, Any] = {
    "applied_revision": 0,
    "applied_lineage": "",
    "applied_at": None,
    RECEIPT: None,
    "first_applied_at": None,
}
"""A server whose host has acknowledged nothing."""
_APPLIED = ("applied_revision", "applied_lineage", "applied_at")
_CODE = 32
Until = tuple[int, str]
"""A revision and a fingerprint: what stands before both is acknowledged."""


def applied(
    connection: Connection, server_id: int, enrolled_at: datetime | None, revision: int, mark: str, at: datetime
) -> dict[str, Any]:
    """The columns of a server whose host obeys a revision; enrolled_at: when that host became this server's, as it
    stands in the row, so that no receipt of a machine before it counts.
    """
    values = {"applied_revision": revision, "applied_lineage": mark, "applied_at": at}
    of = {"id": server_id, "enrolled_at": enrolled_at, **values}
    return {**values, RECEIPT: _of_server(seals_of(connection), of)}


def _of_server(seals: Seals, values: Mapping[str, Any]) -> bytes:
    # Written by hand, as it is made twice for each report of ten thousand hosts. The mark stands last, as others may
    # have written anything there.
    since, at = as_microseconds(values["enrolled_at"]), as_microseconds(values["applied_at"])
    number, revision, mark = values["id"], values["applied_revision"], values["applied_lineage"]
    return seals.mac(f"a server's receipt {number} {since} {revision} {at} {mark}".encode())


def server_holds(connection: Connection, row: Mapping[str, Any]) -> bool:
    """Whether what a server's row says its host acknowledged is what Keyrack wrote; otherwise it is remembered, so that
    an alarm names it, and counts as nothing. row: with all columns of the table.
    """
    if all(row[name] == NOTHING_APPLIED[name] for name in _APPLIED):
        if row["first_applied_at"] is None:
            return True
    elif is_ours(row[RECEIPT], lambda: _of_server(seals_of(connection), row)):
        return True
    note(connection, servers, row)
    return False


def proved(connection: Connection, row: Mapping[str, Any]) -> dict[str, Any]:
    """What counts in place of what a server's row says its host acknowledged: nothing else, or that it has not."""
    return {} if server_holds(connection, row) else dict(NOTHING_APPLIED)


def acknowledged(connection: Connection, table: Table, server_id: int, at: datetime, until: Until) -> bytes:
    """The code beside all rows of a table that a host's report acknowledges; until: where they end, without itself."""
    bound = f"{until[0]} {until[1]}".encode()
    return _of_acknowledged(seals_of(connection), table, server_id, at, bound) + bound


def _of_acknowledged(seals: Seals, table: Table, server_id: int, at: datetime, bound: bytes) -> bytes:
    return seals.mac(f"a receipt in {table.name} {server_id} {as_microseconds(at)} ".encode() + bound)


def when(connection: Connection, table: Table, row: Mapping[str, Any]) -> datetime | None:
    """When a host acknowledged what a row asks of it; None where it has not, or Keyrack did not write that it did,
    which is remembered, so that an alarm names it. row: with all columns of the table.
    """
    at: datetime | None = row["acknowledged_at"]
    if at is None or not sealed.sound(connection, table, row):
        return None
    return at if is_acknowledged(connection, table, row) else None


def is_acknowledged(connection: Connection, table: Table, row: Mapping[str, Any]) -> bool:
    """Whether Keyrack wrote that a row is acknowledged; otherwise that is remembered. Nothing is said of its seal."""
    return acknowledged_until(connection, table, row) is not None


def acknowledged_until(connection: Connection, table: Table, row: Mapping[str, Any]) -> Until | None:
    """As is_acknowledged: before what the report that acknowledged this row acknowledged all; None where none did."""
    code, of = row[RECEIPT], (table, row["server_id"], row["acknowledged_at"])
    if isinstance(code, bytes) and len(code) > _CODE:
        bound = code[_CODE:]
        if is_ours(code[:_CODE], lambda: _of_acknowledged(seals_of(connection), *of, bound)):
            revision, _, fingerprint = bound.decode().partition(" ")
            if place(row) < (until := (int(revision), fingerprint)):
                return until
    note(connection, table, row)
    return None


def place(row: Mapping[str, Any]) -> Until:
    """Where a row that a host is to acknowledge stands among all of that host."""
    return row["revision"], row.get("fingerprint", "")


def note(connection: Connection, table: Table, row: Mapping[str, Any]) -> None:
    """Remember a row whose receipt others entered, changed or took away."""
    values = {name: row[name] for name in (column.name for column in table.c) if name in row}
    key = tuple(row[column.name] for column in table.primary_key)
    seals_of(connection).note_altered(AlteredRow(table.name, key, values, AlteredHow.FALSE_RECEIPT))


def seal_older(connection: Connection, table: Table, row: Mapping[str, Any]) -> bytes | None:
    """The code of a receipt from before there were any; None where the row has none."""
    if table is servers:
        blank = all(row[name] == NOTHING_APPLIED[name] for name in _APPLIED)
        return None if blank else _of_server(seals_of(connection), row)
    if row["acknowledged_at"] is None:
        return None
    return acknowledged(connection, table, row["server_id"], row["acknowledged_at"], (row["revision"] + 1, ""))
