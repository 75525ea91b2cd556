"""Works on whole sealed tables: reads all rows, seals and counts those of older databases, looks for missing ones; must
decide about no row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import Column, Connection, Integer, LargeBinary, Select, String, Table, select, tuple_

from keyrack.store.chunks import chunks
from keyrack.store.engine.prepared import Prepared, among, prepared
from keyrack.store.sealing import access_tree, receipts, sealed, sums, tree_nodes
from keyrack.store.sealing.seals import MALFORMED, SEAL, SEALED_TABLES, AlteredHow, AlteredRow, seals_of
from keyrack.store.tables import access_tree as tree
from keyrack.store.tables import offboarding_git, offboarding_hosts, revocations, servers
from keyrack.store.tables.columns import Flag, Json, Moment, as_bytes, as_flag, as_json, as_moment, as_number, as_text

BATCH_SIZE = 10_000
MAX_NAMED = 500


def every(connection: Connection, table: Table, *where: Any) -> Iterator[Mapping[str, Any]]:
    """All rows of a table that meet the conditions, by primary key; read BATCH_SIZE at a time."""
    for rows in pieces(connection, table, *where):
        yield from rows


def pieces(
    connection: Connection, table: Table, *where: Any, after: Sequence[Any] = (), batch_size: int = BATCH_SIZE
) -> Iterator[Sequence[Mapping[str, Any]]]:
    """The same in batches; after: a primary key, of a row that may be gone, after which to begin."""
    named, last = list(table.primary_key), list(after)
    while True:
        further = [tuple_(*named) > tuple_(*last) if len(named) > 1 else named[0] > last[0]] if last else []
        statement = select(table).where(*where, *further).order_by(*named).limit(batch_size)
        rows = [dict(row) for row in connection.execute(statement).mappings()]
        yield rows
        if len(rows) < batch_size:
            return
        last = [rows[-1][column.name] for column in named]


def seal_all(
    connection: Connection, holds_as_before: Callable[[Table, Mapping[str, Any]], bool], progress: Callable[[str], None]
) -> int:
    """Seal the rows of a database from before there were seals; returns how many.

    holds_as_before: whether a row may be sealed (core/sealing.py); progress: called with words after each batch.
    """
    seals, count = seals_of(connection), 0
    for table in SEALED_TABLES:
        done: list[dict[str, Any]] = []
        of_table = 0
        for row in every(connection, table):
            try:
                if holds_as_before(table, row):
                    done.append({**row, SEAL: seals.of(table, row)})
            except MALFORMED:
                continue
            if len(done) == BATCH_SIZE:
                sealed.set_seals(connection, table, done, there=False)
                of_table += len(done)
                done = []
                progress(f"sealed {of_table} rows of {table.name}")
        sealed.set_seals(connection, table, done, there=False)
        count += of_table + len(done)
    return count


def seal_receipts(connection: Connection, *, counted: bool) -> int:
    """Add codes to the receipts of an older database, and seals to what hosts and Git endpoints are to acknowledge
    after an offboarding; returns how many rows. counted: the tree counts the other rows already, so that these must
    be added to it here.
    """
    seals, count = seals_of(connection), 0
    for table in (servers, revocations, offboarding_hosts):
        for rows in pieces(connection, table):
            codes = [(row, receipts.seal_older(connection, table, row)) for row in rows]
            count += _set(connection, table, receipts.RECEIPT, [(row, code) for row, code in codes if code is not None])
    for table in (offboarding_hosts, offboarding_git):
        for rows in pieces(connection, table):
            made = [{**row, SEAL: seals.of(table, row)} for row in rows]
            count += _set(connection, table, SEAL, [(row, row[SEAL]) for row in made])
            for row in made if counted else ():
                access_tree.note(connection, table, None, row)
            access_tree.settle(connection)
    return count


def _set(connection: Connection, table: Table, column: str, given: Sequence[tuple[Mapping[str, Any], bytes]]) -> int:
    """Set a column; given: each row with its value; returns how many."""
    named = sealed.key_names(table)
    values = ({**{f"of_{name}": row[name] for name in named}, column: value} for row, value in given)
    sums.setting(table, (column,)).run_many(connection, values)
    return len(given)


def count_all(connection: Connection, *, since: int = 0) -> int:
    """Make a new tree of all rows whose seals hold; returns how many. since: the count of changes to start from."""
    access_tree.start(connection, since)
    seals, rows = seals_of(connection), 0
    for table in SEALED_TABLES:
        if table.name not in access_tree.TREES:
            continue
        for row in every(connection, table):
            if table.name == "servers" or seals.holds(table, row):
                access_tree.note(connection, table, None, row)
                rows += 1
            if rows % BATCH_SIZE == 0:
                access_tree.settle(connection)
        access_tree.settle(connection)
    return rows


def counted(connection: Connection, table: Table, after: int = -1) -> Iterator[tuple[int, bool]]:
    """The indexes of a table's places that hold something, and for each whether all its rows are there; where a row
    there is damaged itself, True, as that row is listed anyway. after: an index after which to begin.
    """
    column = table.c[access_tree.TREES[table.name][1]]
    held = [index for index in access_tree.places_held(connection, table) if index > after]
    for some in chunks(held, MAX_NAMED):
        there = set(connection.execute(select(column).where(column.in_(some))).scalars())
        yield from ((index, index in there and not _lacks_some(connection, table, index)) for index in some)


def _lacks_some(connection: Connection, table: Table, index: int) -> bool:
    """Whether rows are missing at a place that several rows share, where each row that is there holds."""
    if access_tree.TREES[table.name][1] == "id":
        return False
    rows = access_tree.rows_at(table).rows(connection, index)
    if not all(sealed.holds(connection, table, row) for row in rows):
        return False
    return not is_complete(connection, table, index)


def is_missed(connection: Connection, table: Table, index: int) -> bool:
    """Whether the tree counts something at this place, so that a row which is not there was deleted by others; True
    also where the tree is damaged. index: of the place, a value of the column in access_tree.TREES.
    """
    root = access_tree.read_root(connection)
    return root is None or access_tree.slot_of(connection, root, (access_tree.TREES[table.name][0], index)) != b""


def is_complete(connection: Connection, table: Table, index: int) -> bool:
    """Whether all rows are there that the tree counts at a place which several rows share; a missing one is noted for
    an alarm. index: of the place, a value of the column in access_tree.TREES.
    """
    root = access_tree.read_root(connection)
    slot = None if root is None else access_tree.slot_of(connection, root, (access_tree.TREES[table.name][0], index))
    if slot is None:
        return False
    whole = access_tree.is_whole(connection, table, index, slot)
    if not whole:
        _note_missing(connection, table, index)
    return whole


def scan_nodes(connection: Connection, after: int, limit: int) -> int | None:
    """Scan the next `limit` nodes of the tree after this id (ROOT at first) for rows and nodes that others deleted, and
    note each for an alarm. Returns the last node's id, None where no more follow.
    """
    root = access_tree.read_root(connection)
    if root is None:
        return None
    if after == tree_nodes.ROOT:
        access_tree.note_altered_below(connection, after, root)
    nodes = _next_nodes.rows(connection, after, limit)
    for node in nodes:
        number, content = node["id"], bytes(node["content"])
        if tree_nodes.is_lowest(number):
            _note_missing_rows(connection, tree_nodes.tree_of(number), tree_nodes.slots_held(number, content))
        else:
            access_tree.note_altered_below(connection, number, content)
    return nodes[-1]["id"] if len(nodes) == limit else None


@prepared
def _next_nodes(after: int, limit: int) -> Select[Any]:
    # By id: the trees one after another, in each the lowest level first.
    return select(tree).where(tree.c.id > after).order_by(tree.c.id).limit(limit)


def _note_missing_rows(connection: Connection, tree_number: int, held: Mapping[int, bytes]) -> None:
    """Note the rows that are missing at places. held: the slots of the places, by index."""
    table = _table_of(tree_number)
    if table is None or not held:
        return
    name = access_tree.TREES[table.name][1]
    there = set(_indexes_among(table).values(connection, list(held)))
    for index, slot in held.items():
        # At a place that several rows share, one may be missing while others are there.
        if index not in there or (name != "id" and not access_tree.is_whole(connection, table, index, slot)):
            _note_missing(connection, table, index)


def _note_missing(connection: Connection, table: Table, index: int) -> None:
    key = (index, *("*" for _ in list(table.primary_key)[1:]))
    named = {access_tree.TREES[table.name][1]: index}
    missing = AlteredRow(table.name, key, named, AlteredHow.MISSING)
    seals_of(connection).note_altered(missing)


def _table_of(number: int) -> Table | None:
    return next((table for table in SEALED_TABLES if access_tree.TREES.get(table.name, (0, ""))[0] == number), None)


@cache
def _indexes_among(table: Table) -> Prepared[[Sequence[int]]]:
    column = table.c[access_tree.TREES[table.name][1]]
    return Prepared(lambda indexes: select(column).where(among(column, indexes)))


def typed(table: Table, raw: Mapping[str, Any]) -> dict[str, Any]:
    """A row that was read from an SQLite file without SQLAlchemy, with its values as SQLAlchemy reads them."""
    return {column.name: _typed(column, raw[column.name]) for column in table.c}


def _typed(column: Column[Any], value: Any) -> Any:
    if value is None:
        return None
    kind = next((kind for kind in _READ if isinstance(column.type, kind)), None)
    return value if kind is None else _READ[kind](value)


_READ: Mapping[type, Callable[[Any], Any]] = {
    Moment: as_moment,
    Json: as_json,
    Flag: as_flag,
    String: as_text,
    Integer: as_number,
    LargeBinary: as_bytes,
}
