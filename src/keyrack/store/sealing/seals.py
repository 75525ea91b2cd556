"""Seals: message authentication codes over rows that decide about access; must write no row and decide nothing.

A seal covers the table's name and all columns that decide something. The store knows no key: the caller that opens the
database provides the function (Seals.use). Somebody who can write only to the database cannot make a seal, so the seal
of a row that they changed or entered does not hold, and the row gives no access.
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Column, Connection, Engine, LargeBinary, Table, event

from keyrack.store.sealing.canonical_json import as_hex, encode_typed
from keyrack.store.tables import (
    access_request_approvals,
    access_requests,
    authenticators,
    expired_keys,
    identities,
    metadata,
    request_rules,
    web_sessions,
)
from keyrack.store.tables.columns import Flag, Moment, as_flag, as_microseconds

SEAL = "seal"
VOLATILE: Mapping[str, frozenset[str]] = {
    # What a host says of itself changes with every report, and gives no access.
    "servers": frozenset(
        {
            *("applied_revision", "applied_at", "applied_lineage", "agent_version", "os", "os_version", "seen_at"),
            *("facts", "agent_run", "receipt"),
        }
    ),
    "server_tags": frozenset(),
    "system_users": frozenset(),
    "removed_accounts": frozenset(),
    "enrolments": frozenset(),
    # The database itself sets created_by to NULL when that user is deleted.
    "credentials": frozenset(("created_by", "acknowledged_at", "noticed_at")),
    # A receipt has a code of its own (receipts.py).
    "revocations": frozenset(("acknowledged_at", "receipt")),
    "revoked_keys": frozenset(),
    "held_back": frozenset(),
    "users": frozenset(),
    "groups": frozenset(),
    "group_members": frozenset(),
    "tokens": frozenset(("last_used_at",)),
    "access_keys": frozenset(),
    "host_keys": frozenset(),
    "user_keys": frozenset(("noticed_at",)),
    "key_sources": frozenset(("checked_at", "next_at")),
    "grants": frozenset(("begun_at", "noticed_at")),
    "projects": frozenset(),
    "repositories": frozenset(("created_by",)),
    "repository_members": frozenset(),
    "deploy_keys": frozenset(("created_by", "last_used_at")),
    access_requests.name: frozenset(),
    access_request_approvals.name: frozenset(),
    request_rules.name: frozenset(),
    expired_keys.name: frozenset(("user_id", "title")),
    "offboardings": frozenset(),
    "offboarding_hosts": frozenset(("acknowledged_at", "receipt")),
    "offboarding_git": frozenset(),
    web_sessions.name: frozenset(("seen_at",)),
    authenticators.name: frozenset(("last_used_at",)),
    identities.name: frozenset(),
    "key_policies": frozenset(),
    "repository_names": frozenset(),
    "deleted_servers": frozenset(),
    "deleted_server_keys": frozenset(),
}
"""The sealed tables, each with the columns that its seal leaves out because they decide nothing and change often."""

# Tables whose rows belong to one server and are counted in the sum that the server's row has (sums.py).
OF_SERVER = frozenset(
    (
        "server_tags",
        "system_users",
        "removed_accounts",
        "enrolments",
        "credentials",
        "revocations",
        "held_back",
        "grants",
    )
)
_NAMES: Mapping[str, tuple[str, ...]] = {name: tuple(metadata.tables[name].c.keys()) for name in VOLATILE}
SEALED_TABLES: tuple[Table, ...] = tuple(metadata.tables[name] for name in VOLATILE)
_KEY = "keyrack seals"
MAX_NODES = 8_192
MAX_FOUND = 1000
MALFORMED = (TypeError, ValueError, OverflowError, AttributeError)
"""The exceptions of computing a seal over values of a wrong type, which others can write into SQLite's columns."""


class AlteredHow(StrEnum):
    """In which way a row is not as Keyrack wrote it; the values are stored in the events of alarms."""

    CHANGED = "changed"
    """Its seal does not hold."""
    OLDER = "older"
    """Its seal holds, but it is not the newest version."""
    MISSING = "missing"
    """Others deleted it."""
    INCOMPLETE = "incomplete"
    """Its seal holds, but rows that belong to it were deleted or put back."""
    FALSE_RECEIPT = "receipt"
    """Its receipt, that a host acknowledged it, was not written by Keyrack."""


@dataclass(frozen=True, slots=True)
class AlteredRow:
    """A row that is not as Keyrack wrote it. key: its primary key; values: what it says now."""

    table: str
    key: tuple[Any, ...]
    values: Mapping[str, Any]
    how: AlteredHow

    @property
    def name(self) -> str:
        """Its name, such as users:5 or server_tags:3,web."""
        return f"{self.table}:{','.join(str(part) for part in self.key)}"


class Seen:
    """Parts of the tree that were verified (access_tree.py), so that they are not computed again."""

    def __init__(self) -> None:
        self.nodes: dict[int, tuple[bytes, bytes]] = {}  # link and content, by id
        self.fitting: dict[tuple[int, int], tuple[bytes, frozenset[bytes | int]]] = {}
        self.root = b""
        self.newest = (0, 0.0)  # the highest count of changes, and the monotonic time since when it is known

    def keep(self, nodes: Mapping[int, tuple[bytes, bytes]]) -> None:
        """Keep nodes by id, each as link and content."""
        if len(self.nodes) >= MAX_NODES:
            self.nodes.clear()
        self.nodes.update(nodes)


class Seals:
    """Makes and checks seals with the function that it is given, and collects the altered rows that are found."""

    def __init__(self) -> None:
        self._mac: Callable[[bytes], bytes] | None = None
        self._lock = threading.Lock()
        self.unreported: dict[str, AlteredRow] = {}
        self.seen = Seen()
        self.kept: dict[tuple[Any, str], dict[Any, Any]] = {}
        """Records made of verified rows: by their rows.Records and the statement, then by the row's name."""
        self._kept_of_table: dict[Table, list[tuple[Any, dict[Any, Any]]]] = {}
        """The same by table, for forget()."""
        self.summands: dict[bytes, int] = {}
        """What a row adds to the sum of its server, by its seal (see sums.py)."""
        self.counts: dict[Any, Any] = {}
        """The lengths of lists (store/counts.py)."""

    def use(self, mac: Callable[[bytes], bytes]) -> None:
        """Seal with this function from now on: a message authentication code of 32 bytes."""
        self._mac = mac
        with self._lock:
            self.kept.clear()
            self._kept_of_table.clear()
        self.summands.clear()
        self.counts.clear()
        self.seen = Seen()

    def mac(self, message: bytes) -> bytes:
        """The code of a message that is not a row; it must begin with words that say what it is for."""
        if self._mac is None:
            raise RuntimeError("What is counted of access is sealed, and there is no key to seal it with.")
        return self._mac(message)

    def of(self, table: Table, values: Mapping[str, Any]) -> bytes:
        """The seal of a row; values: its columns as read from the database. Raises one of MALFORMED for wrong types."""
        if self._mac is None:
            raise RuntimeError("A row that decides about access is sealed, and there is no key to seal it with.")
        return self._mac(_text(table, values))

    def holds(self, table: Table, values: Mapping[str, Any]) -> bool:
        """Whether a row's seal is right; values: all its columns, with the seal."""
        return is_ours(values[SEAL], lambda: self.of(table, values))

    def kept_by(self, made_by: Any, statement: str) -> dict[Any, Any]:
        """The kept records of a statement's rows, by row name; the caller may add some. made_by: a rows.Records."""
        name = (made_by, statement)
        if (kept := self.kept.get(name)) is not None:
            return kept
        with self._lock:
            if name not in self.kept:
                kept = {}
                if made_by.table is not None:
                    self._kept_of_table.setdefault(made_by.table, []).append((made_by, kept))
                self.kept[name] = kept  # last, so that forget() knows of all that anybody can add to
            return self.kept[name]

    def forget(self, table: Table, row: Mapping[str, Any]) -> None:
        """Drop what is kept of a row that was deleted or changed; row: as it was."""
        self.summands.pop(row[SEAL], 0)
        for made_by, kept in self._kept_of_table.get(table, ()):
            kept.pop(made_by.name_in_table(row), None)

    def note_altered(self, altered: AlteredRow) -> None:
        """Collect an altered row until take_unreported; of more than MAX_FOUND the rest is dropped."""
        with self._lock:
            if len(self.unreported) < MAX_FOUND:
                self.unreported[altered.name] = altered

    def take_unreported(self) -> tuple[AlteredRow, ...]:
        """The altered rows that were found since the last call."""
        if not self.unreported:
            return ()
        with self._lock:
            altered, self.unreported = self.unreported, {}
        return tuple(altered.values())


def attach_to_engine(engine: Engine, seals: Seals) -> None:
    """Give these seals to every connection of an engine."""

    @event.listens_for(engine, "connect")
    def _connected(_raw: object, record: Any) -> None:
        record.info[_KEY] = seals


def attach_to_connection(connection: Connection, seals: Seals) -> None:
    """Give these seals to one connection."""
    connection.info[_KEY] = seals


def seals_of(connection: Connection) -> Seals:
    """The seals of this connection."""
    seals: Seals = connection.info[_KEY]
    return seals


def is_ours(code: Any, compute: Callable[[], bytes]) -> bool:
    """Whether a code read from the database, such as a seal, equals the one that `compute` returns; False where that
    raises one of MALFORMED.
    """
    try:
        return isinstance(code, bytes) and hmac.compare_digest(code, compute())
    except MALFORMED:
        return False


def altered_row(table: Table, values: Mapping[str, Any], how: AlteredHow = AlteredHow.CHANGED) -> AlteredRow:
    """The record of a row that is not as Keyrack wrote it."""
    return AlteredRow(table.name, key_of(table, values), dict(values), how)


def incomplete(connection: Connection, table: Table, values: Mapping[str, Any]) -> None:
    """Note for an alarm that others deleted or put back rows that belong to this one."""
    seals_of(connection).note_altered(altered_row(table, values, AlteredHow.INCOMPLETE))


def columns(table: Table, prefix: str) -> list[Any]:
    """All columns of a table for a query that joins it, their names with a prefix."""
    return [column.label(f"{prefix}{column.name}") for column in table.c]


def part(row: Any, table: Table, prefix: str = "") -> Mapping[str, Any]:
    """The columns of one table in a row of a query, without the prefix of their names."""
    mapping: Mapping[str, Any] = row if isinstance(row, Mapping) else row._mapping
    return {name: mapping[prefix + name] for name in _NAMES[table.name]}


def mapping_of(row: Any, table: Table, prefix: str) -> Mapping[str, Any]:
    """The row by its table's column names, perhaps with more columns; not a copy where there is no prefix."""
    if prefix:
        return part(row, table, prefix)
    mapping: Mapping[str, Any] = row if isinstance(row, Mapping) else row._mapping
    return mapping


def unsealed(values: Any) -> dict[str, Any]:
    """The columns of a row without its seal."""
    mapping = values if isinstance(values, dict | Mapping) else values._mapping
    return {str(name): value for name, value in mapping.items() if name != SEAL}


def key_of(table: Table, values: Mapping[str, Any]) -> tuple[Any, ...]:
    """The primary key of a row."""
    return tuple(values[column.name] for column in table.primary_key)


def _sealed_as(column: Column[Any]) -> Callable[[Any], Any] | None:
    """The conversion of a column's value before it is sealed, None for none: SQLite has numbers for booleans, and JSON
    has no times or bytes.
    """
    kinds = ((Flag, as_flag), (Moment, as_microseconds), (LargeBinary, as_hex))
    return next((sealed_as for kind, sealed_as in kinds if isinstance(column.type, kind)), None)


# The former names of renamed columns, as existing seals are made with these.
_SEALED_NAMES: Mapping[tuple[str, str], str] = {("offboarding_git", "acknowledged_at"): "confirmed_at"}


def _sealed_name(column: Column[Any]) -> str:
    return _SEALED_NAMES.get((column.table.name, column.name), column.name)


# By table: the sealed columns, each with its name in the sealed text and the conversion of its values.
_SEALED: Mapping[str, tuple[tuple[str, str, Callable[[Any], Any] | None], ...]] = {
    table.name: tuple(
        (column.name, _sealed_name(column), _sealed_as(column))
        for column in sorted(table.c, key=_sealed_name)
        if column.name != SEAL and column.name not in VOLATILE[table.name]
    )
    for table in SEALED_TABLES
}


def _text(table: Table, values: Mapping[str, Any]) -> bytes:
    """The text of a row that is sealed, the same for both databases. NULL columns are left out, so that adding a column
    breaks no seal of existing rows.
    """
    parts: list[Any] = [table.name]
    for name, sealed_name, sealed_as in _SEALED[table.name]:
        value = values[name]
        if value is not None:
            parts += (sealed_name, value if sealed_as is None else sealed_as(value))
    return encode_typed(parts).encode()


def column_names(table: Table) -> tuple[str, ...]:
    """The names of the columns that a table's seal covers."""
    return tuple(name for name, *_ in _SEALED[table.name])
