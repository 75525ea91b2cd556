"""Writes rows that decide about access, each with its seal; nothing else may write them; must decide nothing.

store/sealing/seals.py describes seals; store/sealing/sums.py and access_tree.py show that a row is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from operator import eq
from typing import Any

from sqlalchemy import BinaryExpression, BindParameter, Connection, Table, delete, insert, select, update
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from keyrack.store.dialect import insert_of
from keyrack.store.engine.execute import write_lost
from keyrack.store.engine.prepared import Row, Statement, placeholder
from keyrack.store.sealing import access_tree
from keyrack.store.sealing.seals import (
    OF_SERVER,
    SEAL,
    SEALED_TABLES,
    VOLATILE,
    AlteredHow,
    altered_row,
    mapping_of,
    part,
    seals_of,
)
from keyrack.store.sealing.sums import (
    count,
    note_written,
    setting,
    sum_anew,
)


def _cascaded() -> dict[str, tuple[tuple[Table, Any, Any], ...]]:
    """By table: what the database deletes with one of its rows (ON DELETE CASCADE), unless that row counts it itself.
    Each as its table, its column, and the column of the owner that this refers to.
    """
    by_owner: dict[str, list[tuple[Table, Any, Any]]] = {}
    for table in SEALED_TABLES:
        for key in table.foreign_keys:
            owner = key.column.table.name
            # A server's sum goes with its row, so what it counted needs no change of a sum.
            if key.ondelete == "CASCADE" and not (owner == "servers" and table.name in OF_SERVER):
                by_owner.setdefault(owner, []).append((table, key.parent, key.column))
    return {owner: tuple(children) for owner, children in by_owner.items()}


_HANGING = _cascaded()
MAX_DELETES = 3
"""How often a DELETE by a condition is tried on PostgreSQL before rows that are still there are an error."""


@dataclass(frozen=True, slots=True)
class Key:
    """Names one row by its primary key, in place of a condition; saves making one."""

    values: tuple[Any, ...]


def row_of(*values: Any) -> Key:
    """The row with this primary key."""
    return Key(values)


def holds(connection: Connection, table: Table, row: Any, prefix: str = "") -> bool:
    """Whether a row is as Keyrack last wrote it; row: all columns of the table, their names with this prefix."""
    values = mapping_of(row, table, prefix)
    return seals_of(connection).holds(table, values) and _is_newest(connection, table, values)


def sound(connection: Connection, table: Table, row: Any, prefix: str = "") -> bool:
    """As holds; a row that does not hold is also noted, so that an alarm names it."""
    seals, values = seals_of(connection), mapping_of(row, table, prefix)
    if not seals.holds(table, values):
        seals.note_altered(altered_row(table, part(row, table, prefix)))
        return False
    if _is_newest(connection, table, values):
        return True
    seals.note_altered(altered_row(table, part(row, table, prefix), AlteredHow.OLDER))
    return False


def _is_newest(connection: Connection, table: Table, values: Mapping[str, Any]) -> bool:
    return table.name in access_tree.NOT_AT_EACH_READ or access_tree.fits(connection, table, values)


def insert_row(connection: Connection, table: Table, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Insert a row; returns all its columns."""
    return insert_rows(connection, table, [values])[0]


def insert_rows(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Insert rows that have the same columns; returns all columns of each."""
    seals = seals_of(connection)
    if not rows:
        return []
    statement = _inserting(table, tuple(rows[0]))
    made: list[Row] = []
    for row in rows:
        made += statement.rows(connection, {**row, SEAL: b""})
    for row in made:
        row[SEAL] = seals.of(table, row)
        count(connection, table, None, row)
    set_seals(connection, table, made)
    return list(made)


@cache
def _inserting(table: Table, columns: tuple[str, ...]) -> Statement:
    named = {name: placeholder(table.c[name]) for name in (*columns, SEAL)}
    return Statement(lambda: insert(table).values(named).returning(*table.c))


def insert_new(connection: Connection, table: Table, values: Mapping[str, Any]) -> bool:
    """Insert a row unless it collides with another; returns whether it was inserted."""
    row = _inserting_new(table, tuple(values), connection.dialect.name).row(connection, {**values, SEAL: b""})
    if row is None:
        return False
    row[SEAL] = seals_of(connection).of(table, row)
    count(connection, table, None, row)
    set_seals(connection, table, [row])
    return True


@cache
def _inserting_new(table: Table, columns: tuple[str, ...], dialect: str) -> Statement:
    named = {name: placeholder(table.c[name]) for name in (*columns, SEAL)}
    return Statement(lambda: insert_of(dialect)(table).values(named).on_conflict_do_nothing().returning(*table.c))


def copy_new(connection: Connection, table: Table, row: Mapping[str, Any]) -> None:
    """Insert a row of another copy of this database (SQLite) with its seal, unless there is one with its key."""
    statement = sqlite_insert(table).values(**row).on_conflict_do_nothing().returning(table.c.seal)
    if connection.execute(statement).first() is not None:
        count(connection, table, None, row)


def change(connection: Connection, table: Table, *where: Any, values: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Set columns of the rows that meet the conditions; returns these rows with their new values.

    A row that others changed gets no valid seal by this: their change is not accepted with ours. Where only columns
    outside the seal (VOLATILE) are set, no row is read and none returned.
    """
    if VOLATILE[table.name].issuperset(values):
        key = _key_in(table, where)
        if key is None:
            connection.execute(update(table).where(*where).values(**values))
        else:
            named = {f"of_{name}": value for name, value in key.items()}
            setting(table, tuple(values)).enqueue(connection, {**values, **named})
        return []
    return recompute(connection, table, *where, new=lambda _old: values)


def change_each(connection: Connection, table: Table, changes: Mapping[int, Mapping[str, Any]]) -> None:
    """As change, for many rows by id, each with its own values; rows that set the same columns, all outside the seal,
    are written by one statement.
    """
    alike: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for number, values in changes.items():
        if VOLATILE[table.name].issuperset(values):
            alike.setdefault(tuple(values), []).append({**values, "of_id": number})
        else:
            change(connection, table, row_of(number), values=values)
    for names, given in alike.items():
        setting(table, names).run_many(connection, given)


def recompute(
    connection: Connection, table: Table, *where: Any, new: Callable[[Mapping[str, Any]], Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """As change, where the new values depend on the row; new: given the old row, returns the columns to set."""
    return [_written(connection, table, old, new(old)) for old in _locked(connection, table, *where)]


def _written(
    connection: Connection, table: Table, old: Mapping[str, Any], values: Mapping[str, Any]
) -> Mapping[str, Any]:
    seals = seals_of(connection)
    row = Row({**old, **values})
    row[SEAL] = seals.of(table, row) if seals.holds(table, old) else b""
    named = {f"of_{column.name}": old[column.name] for column in table.primary_key}
    setting(table, (*values, SEAL), there=True).enqueue(connection, {**values, **named, SEAL: row[SEAL]})
    count(connection, table, old, row)
    if table.name == "servers":
        note_written(connection, (row,))
    return row


@cache
def _locking(table: Table) -> Statement:
    """A SELECT of the row with a primary key that locks it until the transaction ends."""
    return Statement(
        lambda: select(table).where(*(column == placeholder(column) for column in table.primary_key)).with_for_update()
    )


def remove(connection: Connection, table: Table, *where: Any) -> int:
    """Delete the rows that meet the conditions, and those that refer to them; returns how many met the conditions."""
    key = _key_in(table, where)
    for child, column, owned in _HANGING.get(table.name, ()):
        of_these = select(owned).where(*where) if key is None else [key[owned.name]]
        remove(connection, child, column.in_(of_these))
    if key is not None:
        gone: Sequence[Mapping[str, Any]] = _deleting(table).rows(connection, key)
        if not gone and _locking(table).rows(connection, key):
            raise write_lost()
    else:
        gone = _removed(connection, table, where)
    for row in gone:
        count(connection, table, row, None)
    return len(gone)


def _removed(connection: Connection, table: Table, where: Sequence[Any]) -> list[Mapping[str, Any]]:
    """Delete the rows that meet conditions. Raises if some are still there, as a trigger or rule of others kept them.

    On PostgreSQL one may also have been entered since the statement began, so the statement is tried a few times.
    """
    gone: list[Mapping[str, Any]] = []
    for _ in range(1 if connection.dialect.name == "sqlite" else MAX_DELETES):
        deleted = connection.execute(delete(table).where(*where).returning(*table.c))
        gone += [dict(row) for row in deleted.mappings()]
        if connection.execute(select(1).select_from(table).where(*where).limit(1)).first() is None:
            return gone
    raise write_lost()


@cache
def _deleting(table: Table) -> Statement:
    named = [column == placeholder(column) for column in table.primary_key]
    return Statement(lambda: delete(table).where(*named).returning(*table.c))


def reseal(connection: Connection, table: Table, key: Sequence[Any]) -> Mapping[str, Any] | None:
    """Seal a row as it is now, as a person accepted it; returns it. Of a row that is gone it accepts that, and returns
    None.
    """
    if not (rows := _locked(connection, table, row_of(*key))):
        access_tree.note_as_it_stands(connection, table, _blank(table, key))
        return None
    row = dict(rows[0])
    if table.name == "servers":
        row["rows_sum"] = sum_anew(connection, row["id"])
    set_seals(connection, table, [{**row, SEAL: b""}])
    count(connection, table, rows[0], None)
    row[SEAL] = seals_of(connection).of(table, row)
    count(connection, table, None, row)
    set_seals(connection, table, [row])
    access_tree.note_as_it_stands(connection, table, row)
    return row


def drop(connection: Connection, table: Table, key: Sequence[Any]) -> None:
    """Delete a row that is not as Keyrack wrote it; others of its place count as they are now."""
    rows = _locked(connection, table, row_of(*key))
    for row in rows or [_blank(table, key)]:
        remove(connection, table, row_of(*key))
        access_tree.note_as_it_stands(connection, table, row)


def accept_place(connection: Connection, table: Table, number: int) -> None:
    """Accept that rows of a place are missing: its sum becomes that of the rows that are there now.

    number: the place's index, the value of the column that access_tree.TREES names.
    """
    of = access_tree.TREES[table.name][1]
    access_tree.note_as_it_stands(connection, table, {**dict.fromkeys(table.c.keys()), of: number})


def _blank(table: Table, key: Sequence[Any]) -> Mapping[str, Any]:
    """A row that has only its primary key."""
    return {**dict.fromkeys(table.c.keys()), **dict(zip(_KEY_NAMES[table.name], key, strict=True))}


def _key_in(table: Table, where: Sequence[Any]) -> Mapping[str, Any] | None:
    """The primary key, if conditions name it and nothing else, so that a prepared statement can be used; else None."""
    if len(where) == 1 and isinstance(where[0], Key):
        return dict(zip(_KEY_NAMES[table.name], where[0].values, strict=True))
    key: dict[str, Any] = {}
    for condition in where:
        if not isinstance(condition, BinaryExpression) or condition.operator is not eq:
            return None
        if not isinstance(condition.right, BindParameter) or condition.left not in _KEY_COLUMNS[table.name]:
            return None
        key[condition.left.name] = condition.right.value
    return key if len(key) == len(where) == len(_KEY_COLUMNS[table.name]) else None


_KEY_COLUMNS = {table.name: frozenset(table.primary_key) for table in SEALED_TABLES}
_KEY_NAMES = {table.name: tuple(column.name for column in table.primary_key) for table in SEALED_TABLES}


def key_names(table: Table) -> tuple[str, ...]:
    """The columns of a sealed table's primary key."""
    return _KEY_NAMES[table.name]


def _locked(connection: Connection, table: Table, *where: Any) -> Sequence[Mapping[str, Any]]:
    key = _key_in(table, where)
    if key is not None:
        return _locking(table).rows(connection, key)
    statement = select(table).where(*where)
    if connection.dialect.name == "postgresql":
        statement = statement.with_for_update()
    return [dict(row) for row in connection.execute(statement).mappings()]


def set_seals(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], *, there: bool = True) -> None:
    """Write the seals of rows into the database; rows: with primary key and seal.

    there: this transaction wrote or locked the rows, so that one that cannot be updated is an error.
    """
    named = [column.name for column in table.primary_key]
    given = ({**{f"of_{name}": row[name] for name in named}, SEAL: row[SEAL]} for row in rows)
    setting(table, (SEAL,), there=there).run_many(connection, given)
