"""The one way in which rows that decide about access are written: each with a seal; must decide about nobody.

A seal is a keyed code over a table's name and all columns of a row that decide. The store knows no key: whoever opens
the database hands the function in (Seals.use). Whoever can write to the database alone cannot make a seal, so a row
that he changed or entered does not hold, and counts for nothing that opens.
"""

from __future__ import annotations

import hmac
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    Engine,
    Table,
    and_,
    bindparam,
    delete,
    event,
    insert,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from keyrack.store.tables import EPOCH, MICROSECOND, Moment, metadata

SEAL = "seal"
VOLATILE: Mapping[str, frozenset[str]] = {
    # What a host tells of itself comes with every report, and opens nothing.
    "servers": frozenset(
        ("applied_revision", "applied_at", "applied_lineage", "agent_version", "os", "os_version", "seen_at", "facts")
    ),
    "server_tags": frozenset(),
    "system_users": frozenset(),
    "removed_accounts": frozenset(),
    "enrolments": frozenset(),
    # Who made it is emptied by the database itself once that user is gone.
    "credentials": frozenset(("created_by", "delivered_at")),
    "revocations": frozenset(("confirmed_at",)),
    "revoked_keys": frozenset(),
    "held_back": frozenset(),
    "users": frozenset(),
    "groups": frozenset(),
    "group_members": frozenset(),
    "tokens": frozenset(("last_used_at",)),
    "access_keys": frozenset(),
    "user_keys": frozenset(),
    "grants": frozenset(),
    "projects": frozenset(),
    "repositories": frozenset(("created_by",)),
    "repository_members": frozenset(),
    "deploy_keys": frozenset(("created_by", "last_used_at")),
}
"""The sealed tables, each with the columns that its seal leaves out because they decide nothing and change often."""

TABLES: tuple[Table, ...] = tuple(metadata.tables[name] for name in VOLATILE)
_KEY = "keyrack seals"
MOST_FOUND = 1000
AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class Broken:
    """A row that is not as Keyrack wrote it. key: its primary key; values: what it says now."""

    table: str
    key: tuple[Any, ...]
    values: Mapping[str, Any]

    @property
    def name(self) -> str:
        """How it is named to be looked at, removed or sealed again: such as users:5 or server_tags:3,web."""
        return f"{self.table}:{','.join(str(part) for part in self.key)}"


class Seals:
    """Makes seals with the key that it is given, and remembers which rows were found broken since it was asked."""

    def __init__(self) -> None:
        self._mac: Callable[[bytes], bytes] | None = None
        self._lock = threading.Lock()
        self._found: dict[str, Broken] = {}

    def use(self, mac: Callable[[bytes], bytes]) -> None:
        """Seal with this keyed function from now on: text to 32 bytes."""
        self._mac = mac

    def of(self, table: Table, values: Mapping[str, Any]) -> bytes:
        """The seal of a row; values: its columns as they are read from the database."""
        if self._mac is None:
            raise RuntimeError("A row that decides about access is sealed, and there is no key to seal it with.")
        return self._mac(_text(table, values))

    def holds(self, table: Table, values: Mapping[str, Any]) -> bool:
        """Whether a row, with all its columns, is as Keyrack wrote it."""
        seal = values[SEAL]
        try:
            return isinstance(seal, bytes) and hmac.compare_digest(seal, self.of(table, values))
        except (TypeError, ValueError, OverflowError):
            return False  # what no column of ours can hold was not written by us

    def found(self, broken: Broken) -> None:
        """Remember a broken row until somebody takes it."""
        with self._lock:
            if len(self._found) < MOST_FOUND:
                self._found[broken.name] = broken

    def take(self) -> tuple[Broken, ...]:
        """The broken rows that were found since the last time."""
        if not self._found:
            return ()
        with self._lock:
            found, self._found = self._found, {}
        return tuple(found.values())


def attach(engine: Engine, seals: Seals) -> None:
    """Have every connection of an engine know what seals its rows."""

    @event.listens_for(engine, "connect")
    def _connected(_raw: object, record: Any) -> None:
        record.info[_KEY] = seals


def lend(connection: Connection, seals: Seals) -> None:
    """Have one connection know what seals its rows."""
    connection.info[_KEY] = seals


def seals_of(connection: Connection) -> Seals:
    """What seals the rows of this connection."""
    seals: Seals = connection.info[_KEY]
    return seals


def holds(connection: Connection, table: Table, row: Any, prefix: str = "") -> bool:
    """Whether a row is as Keyrack wrote it; row: a mapping with all columns of the table, their names after prefix."""
    return seals_of(connection).holds(table, part(row, table, prefix))


def sound(connection: Connection, table: Table, row: Any, prefix: str = "") -> bool:
    """As holds, and a row that does not hold is remembered, so that an alarm names it."""
    seals, values = seals_of(connection), part(row, table, prefix)
    if seals.holds(table, values):
        return True
    seals.found(broken(table, values))
    return False


def broken(table: Table, values: Mapping[str, Any]) -> Broken:
    """The record of a row that does not hold."""
    return Broken(table.name, _key(table, values), dict(values))


def columns(table: Table, prefix: str) -> list[Any]:
    """All columns of a table for a question that joins it, their names after a prefix."""
    return [column.label(f"{prefix}{column.name}") for column in table.c]


def part(row: Any, table: Table, prefix: str = "") -> Mapping[str, Any]:
    """The columns of one table in a row of a question, by their own names."""
    mapping: Mapping[str, Any] = row if isinstance(row, Mapping) else row._mapping
    return {column.name: mapping[prefix + column.name] for column in table.c}


def unsealed(values: Any) -> dict[str, Any]:
    """The columns of a row without its seal, for a record."""
    mapping = values if isinstance(values, Mapping) else values._mapping
    return {str(name): value for name, value in mapping.items() if name != SEAL}


def insert_row(connection: Connection, table: Table, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Insert a row; answers all its columns."""
    return insert_rows(connection, table, [values])[0]


def insert_rows(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Insert rows that have the same columns; answers all columns of each."""
    seals = seals_of(connection)
    if not rows:
        return []
    blank = [{**row, SEAL: b""} for row in rows]
    made = [dict(row) for row in connection.execute(insert(table).returning(*table.c), blank).mappings()]
    for row in made:
        row[SEAL] = seals.of(table, row)
    _set_seals(connection, table, made)
    return list(made)


def insert_new(connection: Connection, table: Table, values: Mapping[str, Any]) -> bool:
    """Insert a row unless there is one that it would collide with; whether it was inserted."""
    dialect_insert = postgresql_insert if connection.dialect.name == "postgresql" else sqlite_insert
    statement = dialect_insert(table).values(**{**values, SEAL: b""}).on_conflict_do_nothing().returning(*table.c)
    found = connection.execute(statement).mappings().one_or_none()
    if found is None:
        return False
    row = dict(found)
    row[SEAL] = seals_of(connection).of(table, row)
    _set_seals(connection, table, [row])
    return True


def copy_new(connection: Connection, table: Table, row: Mapping[str, Any]) -> None:
    """Insert a row of another copy of this database with the seal it has there, unless there is one with its key."""
    connection.execute(sqlite_insert(table).values(**row).on_conflict_do_nothing())


def typed(table: Table, raw: Mapping[str, Any]) -> dict[str, Any]:
    """A row that was read from an SQLite file past SQLAlchemy, as it would have been read by it."""
    return {column.name: _typed(column, raw[column.name]) for column in table.c}


def _typed(column: Column[Any], value: Any) -> Any:
    if value is None:
        return None
    if isinstance(column.type, Moment):
        return EPOCH + value * MICROSECOND
    if isinstance(column.type, JSON):
        return json.loads(value)
    return bool(value) if isinstance(column.type, Boolean) else value


def change(connection: Connection, table: Table, *where: Any, values: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Set columns of the rows that meet the conditions; answers these rows as they are then.

    A row that was changed by others stays broken, whatever is set in it: nobody's alteration is sealed by the way.
    Where only volatile columns are set no row is read, and none is answered.
    """
    if VOLATILE[table.name].issuperset(values):
        connection.execute(update(table).where(*where).values(**values))
        return []
    return recompute(connection, table, *where, new=lambda _old: values)


def recompute(
    connection: Connection, table: Table, *where: Any, new: Callable[[Mapping[str, Any]], Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """As change, where the new values depend on the row as it was."""
    seals = seals_of(connection)
    made = []
    for old in _locked(connection, table, *where):
        values = dict(new(old))
        row = {**old, **values}
        row[SEAL] = seals.of(table, row) if seals.holds(table, old) else b""
        named = [column == old[column.name] for column in table.primary_key]
        connection.execute(update(table).where(*named).values(**values, seal=row[SEAL]))
        made.append(row)
    return list(made)


def remove(connection: Connection, table: Table, *where: Any) -> int:
    """Delete the rows that meet the conditions; answers how many."""
    return connection.execute(delete(table).where(*where)).rowcount


def reseal(connection: Connection, table: Table, key: Sequence[Any]) -> Mapping[str, Any] | None:
    """Seal a row as it stands, because somebody decided so; the row, None where there is none."""
    rows = _locked(connection, table, *_named(table, key))
    if not rows:
        return None
    row = {**rows[0], SEAL: seals_of(connection).of(table, rows[0])}
    _set_seals(connection, table, [row])
    return row


def drop(connection: Connection, table: Table, key: Sequence[Any]) -> None:
    """Delete the row with this primary key."""
    remove(connection, table, *_named(table, key))


def every(connection: Connection, table: Table, *where: Any) -> Iterator[Mapping[str, Any]]:
    """All rows of a table that meet the conditions, in the order of their keys, so many at a time."""
    named = list(table.primary_key)
    further: list[Any] = []
    while True:
        statement = select(table).where(*where, *further).order_by(*named).limit(AT_ONCE)
        rows = [dict(row) for row in connection.execute(statement).mappings()]
        yield from rows
        if len(rows) < AT_ONCE:
            return
        last = [rows[-1][column.name] for column in named]
        further = [tuple_(*named) > tuple_(*last) if len(named) > 1 else named[0] > last[0]]


def seal_all(
    connection: Connection, holds_as_before: Callable[[Table, Mapping[str, Any]], bool], told: Callable[[str], None]
) -> int:
    """Seal every row that was written before there were seals; how many.

    holds_as_before: whether a row that had a seal of the former kind is as Keyrack wrote it; told: hears of progress.
    """
    seals, count = seals_of(connection), 0
    for table in TABLES:
        done: list[dict[str, Any]] = []
        of_table = 0
        for row in every(connection, table):
            try:
                if holds_as_before(table, row):
                    done.append({**row, SEAL: seals.of(table, row)})
            except (TypeError, ValueError, OverflowError):
                continue
            if len(done) == AT_ONCE:
                _set_seals(connection, table, done)
                of_table += len(done)
                done = []
                told(f"sealed {of_table} rows of {table.name}")
        _set_seals(connection, table, done)
        count += of_table + len(done)
    return count


def _locked(connection: Connection, table: Table, *where: Any) -> list[dict[str, Any]]:
    statement = select(table).where(*where)
    if connection.dialect.name == "postgresql":
        statement = statement.with_for_update()
    return [dict(row) for row in connection.execute(statement).mappings()]


def _named(table: Table, key: Sequence[Any]) -> list[Any]:
    return [column == value for column, value in zip(table.primary_key, key, strict=True)]


def _key(table: Table, values: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(values[column.name] for column in table.primary_key)


_SET = {
    table.name: update(table)
    .where(and_(*(column == bindparam(f"of_{column.name}", type_=column.type) for column in table.primary_key)))
    .values(seal=bindparam("new_seal"))
    for table in TABLES
}


def _set_seals(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    named = [column.name for column in table.primary_key]
    given = [{**{f"of_{name}": row[name] for name in named}, "new_seal": row[SEAL]} for row in rows]
    if given:
        connection.execute(_SET[table.name], given)


# Per table: the columns under its seal, and which of them are true or false, as SQLite keeps those as numbers.
_SEALED: Mapping[str, tuple[tuple[str, bool], ...]] = {
    table.name: tuple(
        (column.name, isinstance(column.type, Boolean))
        for column in sorted(table.c, key=lambda column: column.name)
        if column.name != SEAL and column.name not in VOLATILE[table.name]
    )
    for table in TABLES
}


def _text(table: Table, values: Mapping[str, Any]) -> bytes:
    """A row as text, the same for both databases. Empty columns are left out, so that a column added later, empty in
    all rows there are, breaks no seal.
    """
    told: list[Any] = [table.name]
    for name, is_flag in _SEALED[table.name]:
        value = values[name]
        if value is not None:
            told += (name, bool(value) if is_flag else value)
    return json.dumps(told, sort_keys=True, separators=(",", ":"), default=_plain).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return (value - EPOCH) // MICROSECOND
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"no column holds {type(value).__name__}")


def column_names(table: Table) -> tuple[str, ...]:
    """The columns under a table's seal."""
    return tuple(name for name, _ in _SEALED[table.name])


def is_sealed(column: Column[Any]) -> bool:
    """Whether a column is under its table's seal."""
    return column.name in column_names(column.table)
