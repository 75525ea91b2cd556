"""Writes many rows that decide about access at once, by few statements; must decide nothing.

It does for thousands of rows what store/sealing/sealed.py does for one: rows are read by few queries, seals and sums
are computed here, and one statement is run with the values of all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Integer,
    Select,
    String,
    Table,
    column,
    delete,
    func,
    insert,
    select,
    text,
)
from sqlalchemy import table as lightweight

from keyrack.store.chunks import chunks
from keyrack.store.engine.execute import write_lost
from keyrack.store.engine.prepared import Prepared, Row, Statement, among, placeholder, prepared
from keyrack.store.sealing import sealed, sums
from keyrack.store.sealing.seals import SEAL, VOLATILE, seals_of
from keyrack.store.sealing.sums import BATCH_SIZE
from keyrack.store.tables import servers

Ids = Sequence[int]


def insert_many(
    connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], ids: Ids | None = None
) -> list[Row]:
    """Insert rows; returns all columns of each. Columns that are left out become NULL, also those with a default.

    ids: ids from id_to_give, one for each row. Raises IntegrityError where a row collides with another.
    """
    if not rows:
        return []
    seals = seals_of(connection)
    blank = _blank(table)
    numbered = "id" in table.c
    made = [Row({**blank, **row}) for row in rows]
    if numbered:
        for number, row in zip(ids or _reserved(connection, table, len(rows)), made, strict=True):
            row["id"] = number
    for row in made:
        row[SEAL] = seals.of(table, row)
    sums.count_new(connection, table, made)
    if len(made) == 1:
        _inserting(table).enqueue(connection, made[0])
    else:
        _inserting(table).run_many(connection, made)
    return made


@cache
def _blank(table: Table) -> Mapping[str, Any]:
    return dict.fromkeys(column.name for column in table.c if column.name not in (SEAL, "id"))


@cache
def _inserting(table: Table) -> Statement:
    return Statement(lambda: insert(table).values({column.name: placeholder(column) for column in table.c}))


def _reserved(connection: Connection, table: Table, count: int) -> Ids:
    """New ids, taken before the insert, as a row's seal covers its id."""
    if connection.dialect.name == "postgresql":
        return [row["nextval"] for row in _reserving.rows(connection, {"sequence_of": table.name, "count": count})]
    # SQLite has one writer, so nobody else takes these; the sequence follows the highest id that is inserted.
    highest = _last_id.value(connection, table.name) or 0
    return range(highest + 1, highest + 1 + count)


_reserving = Statement(
    lambda: text(
        "SELECT nextval(pg_get_serial_sequence(:given_sequence_of, 'id')) AS nextval"
        " FROM generate_series(1, CAST(:given_count AS int))"
    ).columns(column("nextval", Integer))
)


_sequences = lightweight("sqlite_sequence", column("name", String), column("seq", Integer))


def numbers_rows(connection: Connection) -> bool:
    """Whether the next id is known from the last one: on SQLite, which has one writer."""
    return connection.dialect.name == "sqlite"


def id_to_give(table: Table, *, numbered: bool) -> ColumnElement[int]:
    """An expression for the id of the row that a command is about to insert, for a query that it runs anyway.

    Nobody else gets the id; on PostgreSQL it stays unused where the command is refused. numbered: what numbers_rows
    returns; on SQLite nothing may be inserted between that query and the row.
    """
    if not numbered:
        return func.nextval(func.pg_get_serial_sequence(table.name, "id"), type_=Integer)
    last = select(_sequences.c.seq).where(_sequences.c.name == table.name).scalar_subquery()
    return func.coalesce(last, 0) + 1


@prepared
def _last_id(name: str) -> Select[Any]:
    return select(_sequences.c.seq).where(_sequences.c.name == name)


def remove_among(
    connection: Connection, table: Table, sound: Mapping[int, Mapping[str, Any]] | None = None, **named: Sequence[Any]
) -> list[Row]:
    """Delete the rows whose columns each have one of the values given for it, such as user_id=[1, 2]; returns them.

    No sealed row may refer to them. Raises where a row is still there, as a trigger or rule of others kept it; rows
    that are not named by id may have been entered meanwhile, so they are deleted a second time before that.
    sound: by id the rows that were read before and whose seals hold.
    """
    gone = _deleting(table, tuple(named)).rows(connection, named)
    by_id = tuple(named) == ("id",)
    if not (by_id and len(gone) == len(set(named["id"]))) and _there(table, tuple(named)).rows(connection, named):
        again = [] if by_id else _deleting(table, tuple(named)).rows(connection, named)
        if not again or _there(table, tuple(named)).rows(connection, named):
            raise write_lost()
        gone += again
    for row in gone:
        known = sound is not None and sound.get(row["id"]) == row
        sums.count(connection, table, row, None, held=True if known else None)
    return gone


@cache
def _deleting(table: Table, columns: tuple[str, ...]) -> Statement:
    return Statement(lambda: delete(table).where(*_among_named(table, columns)).returning(*table.c))


@cache
def _there(table: Table, columns: tuple[str, ...]) -> Statement:
    return Statement(lambda: select(*table.primary_key).where(*_among_named(table, columns)).limit(1))


def _among_named(table: Table, columns: tuple[str, ...]) -> list[ColumnElement[bool]]:
    return [among(table.c[name], placeholder(table.c[name])) for name in columns]


def change_many(
    connection: Connection,
    table: Table,
    rows: Iterable[Mapping[str, Any]],
    new: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    *,
    sound: bool = False,
) -> list[Row]:
    """Set columns of rows; returns them with their new values. rows: as read with a lock, with all sealed columns.

    new: given a row, returns the columns to set, the same for each row; sound: the seals of all were checked already. A
    row that others changed gets no valid seal by this.
    """
    seals = seals_of(connection)
    written: list[Row] = []
    given: list[dict[str, Any]] = []
    key = sealed.key_names(table)
    columns: tuple[str, ...] = ()
    for old in rows:
        values = new(old)
        columns = tuple(values)
        row = Row({**old, **values})
        held = sound or seals.holds(table, old)
        row[SEAL] = seals.of(table, row) if held else b""
        sums.count(connection, table, old, row, held=held)
        given.append({**values, **{f"of_{name}": old[name] for name in key}, SEAL: row[SEAL]})
        written.append(row)
    if given:
        sums.setting(table, (*columns, SEAL), there=True).run_many(connection, given)
    return written


def locked_servers(connection: Connection, server_ids: Iterable[int]) -> list[Row]:
    """The sealed columns of these servers, by id, locked until the transaction ends."""
    rows: list[Row] = []
    for some in chunks(sorted(set(server_ids)), BATCH_SIZE):
        rows += _locking_servers().rows(connection, some)
    return rows


@cache
def locked_columns() -> tuple[Column[Any], ...]:
    """The columns of a server that locked_servers returns."""
    # What hosts report of themselves is left out: it is long, and nothing here needs it.
    columns = VOLATILE[servers.name]
    return tuple(column for column in servers.c if column.name not in columns)


@cache
def _locking_servers() -> Prepared[[Sequence[int]]]:
    def question(ids: Sequence[int]) -> Any:
        return select(*locked_columns()).where(among(servers.c.id, ids)).order_by(servers.c.id).with_for_update()

    return Prepared(question)


def change_servers(
    connection: Connection, rows: Iterable[Row], new: Callable[[Mapping[str, Any]], Mapping[str, Any]]
) -> list[Row]:
    """As change_many, for servers read by locked_servers; also sets their sums to what was noted so far, so that each
    server is sealed and written only once.
    """
    changed = change_many(connection, servers, rows, lambda old: {**new(old), "rows_sum": sums.sum_of(connection, old)})
    sums.note_written(connection, changed)
    return changed
