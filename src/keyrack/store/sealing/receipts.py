"""Receipts: codes (HMAC) which show that a host acknowledged something; must write no row and decide nothing.

A report must not change the seals of the rows it acknowledges, so a receipt has a code in a column of its own, computed
once for all rows that a report acknowledges. A server's code covers the revision that its host applied, the revision's
mark and the time. The code of a key to refuse or a person who was removed covers the time and the revision that the
host has reached. Each row's own revision is under its seal, so a code that is copied to another row, or put back later,
never says more than the host did. A receipt that others deleted shows by what the same host acknowledged after it
(store/hosts/applied.py); if they deleted all receipts of a host, its server's row shows it, whose seal covers that
there was one.
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
"""The columns of a server whose host has acknowledged nothing."""
_APPLIED = ("applied_revision", "applied_lineage", "applied_at")
_CODE = 32
Until = tuple[int, str]
"""A revision and a fingerprint, as a bound: all rows of a host that sort before it are acknowledged."""


def applied(
    connection: Connection, server_id: int, enrolled_at: datetime | None, revision: int, mark: str, at: datetime
) -> dict[str, Any]:
    """The columns of a server whose host applied a revision at a time; enrolled_at: as in the server's row, so that
    receipts of a machine that was enrolled before do not count.
    """
    values = {"applied_revision": revision, "applied_lineage": mark, "applied_at": at}
    of = {"id": server_id, "enrolled_at": enrolled_at, **values}
    return {**values, RECEIPT: _of_server(seals_of(connection), of)}


def _of_server(seals: Seals, values: Mapping[str, Any]) -> bytes:
    # Formatted here, without JSON, as each report needs it twice. The mark stands last, as others may have written any
    # text into it.
    since, at = as_microseconds(values["enrolled_at"]), as_microseconds(values["applied_at"])
    number, revision, mark = values["id"], values["applied_revision"], values["applied_lineage"]
    return seals.mac(f"a server's receipt {number} {since} {revision} {at} {mark}".encode())


def server_holds(connection: Connection, row: Mapping[str, Any]) -> bool:
    """Whether the receipt in a server's row is right; one that is not is noted for an alarm, and counts as none.
    row: all columns of the table.
    """
    if all(row[name] == NOTHING_APPLIED[name] for name in _APPLIED):
        if row["first_applied_at"] is None:
            return True
    elif is_ours(row[RECEIPT], lambda: _of_server(seals_of(connection), row)):
        return True
    note(connection, servers, row)
    return False


def proved(connection: Connection, row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns to replace in a server's row before it is used: none, or NOTHING_APPLIED for a false receipt."""
    return {} if server_holds(connection, row) else dict(NOTHING_APPLIED)


def acknowledged(connection: Connection, table: Table, server_id: int, at: datetime, until: Until) -> bytes:
    """The code for all rows of a table that a host's report acknowledges; until: their bound, exclusive."""
    bound = f"{until[0]} {until[1]}".encode()
    return _of_acknowledged(seals_of(connection), table, server_id, at, bound) + bound


def _of_acknowledged(seals: Seals, table: Table, server_id: int, at: datetime, bound: bytes) -> bytes:
    return seals.mac(f"a receipt in {table.name} {server_id} {as_microseconds(at)} ".encode() + bound)


def when(connection: Connection, table: Table, row: Mapping[str, Any]) -> datetime | None:
    """When a host acknowledged a row; None where it has not, or the receipt is false, which is noted for an alarm.
    row: all columns of the table.
    """
    at: datetime | None = row["acknowledged_at"]
    if at is None or not sealed.sound(connection, table, row):
        return None
    return at if is_acknowledged(connection, table, row) else None


def is_acknowledged(connection: Connection, table: Table, row: Mapping[str, Any]) -> bool:
    """Whether a row's receipt is right; a false one is noted for an alarm. The row's seal is not checked."""
    return acknowledged_until(connection, table, row) is not None


def acknowledged_until(connection: Connection, table: Table, row: Mapping[str, Any]) -> Until | None:
    """As is_acknowledged; returns the bound in the receipt, None for a false one."""
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
    """The sort position of a row among all that its host is to acknowledge; to be compared with an Until."""
    return row["revision"], row.get("fingerprint", "")


def note(connection: Connection, table: Table, row: Mapping[str, Any]) -> None:
    """Note for an alarm a row whose receipt others entered, changed or deleted."""
    values = {name: row[name] for name in (column.name for column in table.c) if name in row}
    key = tuple(row[column.name] for column in table.primary_key)
    seals_of(connection).note_altered(AlteredRow(table.name, key, values, AlteredHow.FALSE_RECEIPT))


def seal_older(connection: Connection, table: Table, row: Mapping[str, Any]) -> bytes | None:
    """The code for a receipt of an older database, which had no codes; None where the row has no receipt."""
    if table is servers:
        blank = all(row[name] == NOTHING_APPLIED[name] for name in _APPLIED)
        return None if blank else _of_server(seals_of(connection), row)
    if row["acknowledged_at"] is None:
        return None
    return acknowledged(connection, table, row["server_id"], row["acknowledged_at"], (row["revision"] + 1, ""))
