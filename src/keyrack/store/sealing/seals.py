"""What a seal is: a keyed code over a row that decides about access; must write no row and decide about nobody.

It is over a table's name and all columns of a row that decide. The store knows no key: whoever opens the database
hands the function in (Seals.use). Whoever can write to the database alone cannot make a seal, so a row that he changed
or entered does not hold, and counts for nothing that opens.
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
    # What a host tells of itself comes with every report, and opens nothing.
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
    # Who made it is emptied by the database itself once that user is gone.
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

# What belongs to one server, and is counted in the sum that its own row holds: a row that somebody deletes or puts
# back as it was has a good seal or leaves none, but the sum fits no longer.
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
NO_VALUES_OF_OURS = (TypeError, ValueError, OverflowError, AttributeError)
"""What is raised where a row is written out, to be sealed, whose values no column of ours can hold."""


class AlteredHow(StrEnum):
    """How a row is not as Keyrack wrote it; the values are kept in the events of alarms."""

    CHANGED = "changed"
    """Its seal does not hold."""
    OLDER = "older"
    """Its seal holds, and it is not the newest that was written of it."""
    MISSING = "missing"
    """Others deleted it."""
    INCOMPLETE = "incomplete"
    """Its seal holds, and what belongs to it was deleted or put back."""
    FALSE_RECEIPT = "receipt"
    """Keyrack did not write what a host is said to have acknowledged there."""


@dataclass(frozen=True, slots=True)
class AlteredRow:
    """A row that is not as Keyrack wrote it. key: its primary key; values: what it says now."""

    table: str
    key: tuple[Any, ...]
    values: Mapping[str, Any]
    how: AlteredHow

    @property
    def name(self) -> str:
        """How it is named to be looked at, removed or sealed again: such as users:5 or server_tags:3,web."""
        return f"{self.table}:{','.join(str(part) for part in self.key)}"


class Seen:
    """What was found true of the tree (see access_tree.py), so that it is not reckoned again."""

    def __init__(self) -> None:
        self.nodes: dict[int, tuple[bytes, bytes]] = {}  # each with the link that fits it
        self.fitting: dict[tuple[int, int], tuple[bytes, frozenset[bytes | int]]] = {}
        self.root = b""
        self.newest = (0, 0.0)  # the highest count of changes, and since when it is known

    def keep(self, nodes: Mapping[int, tuple[bytes, bytes]]) -> None:
        """Keep nodes, each with the link that was computed of it."""
        if len(self.nodes) >= MAX_NODES:
            self.nodes.clear()
        self.nodes.update(nodes)


class Seals:
    """Makes seals with the key that it is given, and remembers which rows were found altered since it was asked."""

    def __init__(self) -> None:
        self._mac: Callable[[bytes], bytes] | None = None
        self._lock = threading.Lock()
        self.unreported: dict[str, AlteredRow] = {}
        self.seen = Seen()
        self.kept: dict[tuple[Any, str], dict[Any, Any]] = {}
        """What was made of rows that hold, by what made it, of which statement's rows (see rows.Records)."""
        self._kept_of_table: dict[Table, list[tuple[Any, dict[Any, Any]]]] = {}
        """The same by the rows' table, for forget(): what made it, and what is kept, by the row's name."""
        self.summands: dict[bytes, int] = {}
        """What a row adds to the sum of its server, by its seal (see sums.py)."""
        self.counts: dict[Any, Any] = {}
        """How long lists are (see store/counts.py)."""

    def use(self, mac: Callable[[bytes], bytes]) -> None:
        """Seal with this keyed function from now on: text to 32 bytes."""
        self._mac = mac
        with self._lock:
            self.kept.clear()
            self._kept_of_table.clear()
        self.summands.clear()
        self.counts.clear()
        self.seen = Seen()

    def mac(self, message: bytes) -> bytes:
        """32 bytes over a text that is no row's, whose first words say what it is."""
        if self._mac is None:
            raise RuntimeError("What is counted of access is sealed, and there is no key to seal it with.")
        return self._mac(message)

    def of(self, table: Table, values: Mapping[str, Any]) -> bytes:
        """The seal of a row; values: its columns as they are read from the database."""
        if self._mac is None:
            raise RuntimeError("A row that decides about access is sealed, and there is no key to seal it with.")
        return self._mac(_text(table, values))

    def holds(self, table: Table, values: Mapping[str, Any]) -> bool:
        """Whether a row, with all its columns, is as Keyrack wrote it."""
        return is_ours(values[SEAL], lambda: self.of(table, values))

    def kept_by(self, made_by: Any, statement: str) -> dict[Any, Any]:
        """What is kept of a statement's rows, by the row's name, to be read and added to; made_by: a rows.Records."""
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
        """Keep nothing of a row as it was: it is deleted, or another one now."""
        self.summands.pop(row[SEAL], 0)
        for made_by, kept in self._kept_of_table.get(table, ()):
            kept.pop(made_by.name_in_table(row), None)

    def note_altered(self, altered: AlteredRow) -> None:
        """Remember an altered row until somebody takes it."""
        with self._lock:
            if len(self.unreported) < MAX_FOUND:
                self.unreported[altered.name] = altered

    def take_unreported(self) -> tuple[AlteredRow, ...]:
        """The altered rows that were found since the last time."""
        if not self.unreported:
            return ()
        with self._lock:
            altered, self.unreported = self.unreported, {}
        return tuple(altered.values())


def attach_to_engine(engine: Engine, seals: Seals) -> None:
    """Have every connection of an engine know what seals its rows."""

    @event.listens_for(engine, "connect")
    def _connected(_raw: object, record: Any) -> None:
        record.info[_KEY] = seals


def attach_to_connection(connection: Connection, seals: Seals) -> None:
    """Have one connection know what seals its rows."""
    connection.info[_KEY] = seals


def seals_of(connection: Connection) -> Seals:
    """What seals the rows of this connection."""
    seals: Seals = connection.info[_KEY]
    return seals


def is_ours(code: Any, compute: Callable[[], bytes]) -> bool:
    """Whether a seal or another keyed code, as it was read from the database, is the one that `compute` makes of the
    values beside it. Those that no column of ours can hold, for which it raises, were not written by us.
    """
    try:
        return isinstance(code, bytes) and hmac.compare_digest(code, compute())
    except NO_VALUES_OF_OURS:
        return False


def altered_row(table: Table, values: Mapping[str, Any], how: AlteredHow = AlteredHow.CHANGED) -> AlteredRow:
    """The record of a row that is not as Keyrack wrote it."""
    return AlteredRow(table.name, key_of(table, values), dict(values), how)


def incomplete(connection: Connection, table: Table, values: Mapping[str, Any]) -> None:
    """Remember that rows that belong to this one were deleted or put back by others."""
    seals_of(connection).note_altered(altered_row(table, values, AlteredHow.INCOMPLETE))


def columns(table: Table, prefix: str) -> list[Any]:
    """All columns of a table for a question that joins it, their names after a prefix."""
    return [column.label(f"{prefix}{column.name}") for column in table.c]


def part(row: Any, table: Table, prefix: str = "") -> Mapping[str, Any]:
    """The columns of one table in a row of a question, by their own names."""
    mapping: Mapping[str, Any] = row if isinstance(row, Mapping) else row._mapping
    return {name: mapping[prefix + name] for name in _NAMES[table.name]}


def mapping_of(row: Any, table: Table, prefix: str) -> Mapping[str, Any]:
    """The row by its table's own names, and perhaps more; no copy where it has them, as this is asked of every row."""
    if prefix:
        return part(row, table, prefix)
    mapping: Mapping[str, Any] = row if isinstance(row, Mapping) else row._mapping
    return mapping


def unsealed(values: Any) -> dict[str, Any]:
    """The columns of a row without its seal, for a record."""
    mapping = values if isinstance(values, dict | Mapping) else values._mapping
    return {str(name): value for name, value in mapping.items() if name != SEAL}


def key_of(table: Table, values: Mapping[str, Any]) -> tuple[Any, ...]:
    """The primary key of a row."""
    return tuple(values[column.name] for column in table.primary_key)


def _sealed_as(column: Column[Any]) -> Callable[[Any], Any] | None:
    """What a column's value goes through: what is true or false is a number in SQLite, times and bytes have no JSON."""
    kinds = ((Flag, as_flag), (Moment, as_microseconds), (LargeBinary, as_hex))
    return next((sealed_as for kind, sealed_as in kinds if isinstance(column.type, kind)), None)


# What columns were called when the first seals were made over them, which name them so.
_SEALED_NAMES: Mapping[tuple[str, str], str] = {("offboarding_git", "acknowledged_at"): "confirmed_at"}


def _sealed_name(column: Column[Any]) -> str:
    return _SEALED_NAMES.get((column.table.name, column.name), column.name)


# Per table: the columns under its seal, each with its name there, and what their values go through.
_SEALED: Mapping[str, tuple[tuple[str, str, Callable[[Any], Any] | None], ...]] = {
    table.name: tuple(
        (column.name, _sealed_name(column), _sealed_as(column))
        for column in sorted(table.c, key=_sealed_name)
        if column.name != SEAL and column.name not in VOLATILE[table.name]
    )
    for table in SEALED_TABLES
}


def _text(table: Table, values: Mapping[str, Any]) -> bytes:
    """A row as text, the same for both databases. Empty columns are left out, so that a column added later, empty in
    all rows there are, breaks no seal.
    """
    parts: list[Any] = [table.name]
    for name, sealed_name, sealed_as in _SEALED[table.name]:
        value = values[name]
        if value is not None:
            parts += (sealed_name, value if sealed_as is None else sealed_as(value))
    return encode_typed(parts).encode()


def column_names(table: Table) -> tuple[str, ...]:
    """The columns under a table's seal."""
    return tuple(name for name, *_ in _SEALED[table.name])
