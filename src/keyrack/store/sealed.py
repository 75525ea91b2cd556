"""The one way in which rows that decide about access are written: each with a seal; must decide about nobody.

A seal is a keyed code over a table's name and all columns of a row that decide. The store knows no key: whoever opens
the database hands the function in (Seals.use). Whoever can write to the database alone cannot make a seal, so a row
that he changed or entered does not hold, and counts for nothing that opens.
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from operator import eq
from typing import Any

from sqlalchemy import (
    BinaryExpression,
    BindParameter,
    Boolean,
    Column,
    Connection,
    Engine,
    Select,
    Table,
    delete,
    event,
    insert,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from keyrack.store import key_source_tables as key_source_tables
from keyrack.store.dialect import insert_of
from keyrack.store.ending_tables import expired_keys
from keyrack.store.engine.prepared import Row, Statement, among, placeholder, prepared
from keyrack.store.per_server import PerServer, per_server
from keyrack.store.plain import encode
from keyrack.store.request_tables import access_request_approvals, access_requests, request_rules
from keyrack.store.tables import metadata

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
    "credentials": frozenset(("created_by", "delivered_at", "noticed_at")),
    "revocations": frozenset(("confirmed_at",)),
    "revoked_keys": frozenset(),
    "held_back": frozenset(),
    "users": frozenset(),
    "groups": frozenset(),
    "group_members": frozenset(),
    "tokens": frozenset(("last_used_at",)),
    "access_keys": frozenset(),
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
    expired_keys.name: frozenset(),
    "offboardings": frozenset(),
}
"""The sealed tables, each with the columns that its seal leaves out because they decide nothing and change often."""

_NAMES: Mapping[str, tuple[str, ...]] = {name: tuple(metadata.tables[name].c.keys()) for name in VOLATILE}
TABLES: tuple[Table, ...] = tuple(metadata.tables[name] for name in VOLATILE)
_KEY = "keyrack seals"
MOST_FOUND = 1000
AT_ONCE = 5_000  # rows read by one question, so that what is held in memory is bounded


@dataclass(frozen=True, slots=True)
class Broken:
    """A row that is not as Keyrack wrote it. key: its primary key; values: what it says now; incomplete: it holds, and
    what belongs to it does not.
    """

    table: str
    key: tuple[Any, ...]
    values: Mapping[str, Any]
    incomplete: bool = False

    @property
    def name(self) -> str:
        """How it is named to be looked at, removed or sealed again: such as users:5 or server_tags:3,web."""
        return f"{self.table}:{','.join(str(part) for part in self.key)}"


@dataclass(frozen=True, slots=True)
class Key:
    """Names one row by its primary key, where conditions are asked for: no condition need be made for it."""

    values: tuple[Any, ...]


def row_of(*values: Any) -> Key:
    """The row with this primary key."""
    return Key(values)


class Seals:
    """Makes seals with the key that it is given, and remembers which rows were found broken since it was asked."""

    def __init__(self) -> None:
        self._mac: Callable[[bytes], bytes] | None = None
        self._lock = threading.Lock()
        self._found: dict[str, Broken] = {}
        self.kept: dict[Any, dict[Any, Any]] = {}
        """What was made of rows that hold, by what made it and by the row as it was read (see rows.Records)."""

    def use(self, mac: Callable[[bytes], bytes]) -> None:
        """Seal with this keyed function from now on: text to 32 bytes."""
        self._mac = mac
        self.kept.clear()

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
    return seals_of(connection).holds(table, _mapping(row, table, prefix))


def sound(connection: Connection, table: Table, row: Any, prefix: str = "") -> bool:
    """As holds, and a row that does not hold is remembered, so that an alarm names it."""
    seals = seals_of(connection)
    if seals.holds(table, _mapping(row, table, prefix)):
        return True
    seals.found(broken(table, part(row, table, prefix)))
    return False


def broken(table: Table, values: Mapping[str, Any]) -> Broken:
    """The record of a row that does not hold."""
    return Broken(table.name, _key(table, values), dict(values))


def incomplete(connection: Connection, table: Table, values: Mapping[str, Any]) -> None:
    """Remember that rows that belong to this one were deleted or put back by others."""
    seals_of(connection).found(Broken(table.name, _key(table, values), dict(values), incomplete=True))


def columns(table: Table, prefix: str) -> list[Any]:
    """All columns of a table for a question that joins it, their names after a prefix."""
    return [column.label(f"{prefix}{column.name}") for column in table.c]


def part(row: Any, table: Table, prefix: str = "") -> Mapping[str, Any]:
    """The columns of one table in a row of a question, by their own names."""
    mapping: Mapping[str, Any] = row if isinstance(row, Mapping) else row._mapping
    return {name: mapping[prefix + name] for name in _NAMES[table.name]}


def _mapping(row: Any, table: Table, prefix: str) -> Mapping[str, Any]:
    """The row by its table's own names, and perhaps more; no copy where it has them, as this is asked of every row."""
    if prefix:
        return part(row, table, prefix)
    mapping: Mapping[str, Any] = row if isinstance(row, Mapping) else row._mapping
    return mapping


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
    """Insert a row unless there is one that it would collide with; whether it was inserted."""
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
    """Insert a row of another copy of this database with the seal it has there, unless there is one with its key."""
    statement = sqlite_insert(table).values(**row).on_conflict_do_nothing().returning(table.c.seal)
    if connection.execute(statement).first() is not None:
        count(connection, table, None, row)


def change(connection: Connection, table: Table, *where: Any, values: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Set columns of the rows that meet the conditions; answers these rows as they are then.

    A row that was changed by others stays broken, whatever is set in it: nobody's alteration is sealed by the way.
    Where only volatile columns are set no row is read, and none is answered.
    """
    if VOLATILE[table.name].issuperset(values):
        key = _key_in(table, where)
        if key is None:
            connection.execute(update(table).where(*where).values(**values))
        else:
            named = {f"of_{name}": value for name, value in key.items()}
            setting(table, tuple(values)).run(connection, {**values, **named})
        return []
    return recompute(connection, table, *where, new=lambda _old: values)


def recompute(
    connection: Connection, table: Table, *where: Any, new: Callable[[Mapping[str, Any]], Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """As change, where the new values depend on the row as it was."""
    return [_written(connection, table, old, new(old)) for old in _locked(connection, table, *where)]


def _written(
    connection: Connection, table: Table, old: Mapping[str, Any], values: Mapping[str, Any]
) -> Mapping[str, Any]:
    seals = seals_of(connection)
    row = Row({**old, **values})
    row[SEAL] = seals.of(table, row) if seals.holds(table, old) else b""
    named = {f"of_{column.name}": old[column.name] for column in table.primary_key}
    setting(table, (*values, SEAL)).run(connection, {**values, **named, SEAL: row[SEAL]})
    count(connection, table, old, row)
    if table.name == "servers":
        note_written(connection, (row,))
    return row


@cache
def _locking(table: Table) -> Statement:
    """Reads the row with a primary key; nobody else changes it until the end."""
    return Statement(
        lambda: select(table).where(*(column == placeholder(column) for column in table.primary_key)).with_for_update()
    )


@cache
def setting(table: Table, columns: tuple[str, ...]) -> Statement:
    """Sets columns of the row with a primary key, whose columns' names stand after of_."""
    named = [column == placeholder(column, f"of_{column.name}") for column in table.primary_key]
    values = {name: placeholder(table.c[name]) for name in columns}
    return Statement(lambda: update(table).where(*named).values(values))


def remove(connection: Connection, table: Table, *where: Any) -> int:
    """Delete the rows that meet the conditions, with what hangs on them; answers how many."""
    key = _key_in(table, where)
    for child, column in _HANGING.get(table.name, ()):
        of_these = select(table.c.id).where(*where) if key is None else [key["id"]]
        remove(connection, child, column.in_(of_these))
    if key is not None:
        gone: Sequence[Mapping[str, Any]] = _deleting(table).rows(connection, key)
    elif table.name not in OF_SERVER:
        return connection.execute(delete(table).where(*where)).rowcount
    else:
        gone = [dict(row) for row in connection.execute(delete(table).where(*where).returning(*table.c)).mappings()]
    for row in gone:
        count(connection, table, row, None)
    return len(gone)


@cache
def _deleting(table: Table) -> Statement:
    named = [column == placeholder(column) for column in table.primary_key]
    return Statement(lambda: delete(table).where(*named).returning(*table.c))


def reseal(connection: Connection, table: Table, key: Sequence[Any]) -> Mapping[str, Any] | None:
    """Seal a row as it stands, because somebody decided so; the row, None where there is none."""
    if not (rows := _locked(connection, table, row_of(*key))):
        return None
    row = dict(rows[0])
    if table.name == "servers":
        row["rows_sum"] = _bytes(_total(connection, row["id"], holding=True))
        connection.execute(update(table).where(table.c.id == row["id"]).values(rows_sum=row["rows_sum"]))
        connection.info[_RAISED] = {}
    set_seals(connection, table, [{**row, SEAL: b""}])
    count(connection, table, rows[0], None)
    row[SEAL] = seals_of(connection).of(table, row)
    count(connection, table, None, row)
    set_seals(connection, table, [row])
    return row


def drop(connection: Connection, table: Table, key: Sequence[Any]) -> None:
    """Delete the row with this primary key."""
    remove(connection, table, row_of(*key))


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
# What the database itself deletes with a row, and is counted.
_HANGING: Mapping[str, tuple[tuple[Table, Any], ...]] = {
    "users": ((metadata.tables["grants"], metadata.tables["grants"].c.user_id),),
    "groups": ((metadata.tables["grants"], metadata.tables["grants"].c.group_id),),
    "system_users": ((metadata.tables["credentials"], metadata.tables["credentials"].c.system_user_id),),
}
_MODULUS = 2**256
_PENDING = "keyrack sums"
_RAISED = "keyrack servers"


def begin_counting(connection: Connection) -> None:
    """Start a command's counts afresh."""
    connection.info[_PENDING] = {}
    connection.info[_RAISED] = {}


@contextmanager
def counting(connection: Connection) -> Iterator[None]:
    """Around a savepoint: what is undone with it does not count."""
    before = dict(connection.info.get(_PENDING, {}))
    try:
        yield
    except BaseException:
        connection.info[_PENDING] = before
        connection.info[_RAISED] = {}
        raise


def settle(connection: Connection) -> None:
    """Bring what a command changed into the sums of the servers concerned, before it is committed."""
    pending: dict[int, int] = connection.info.get(_PENDING, {})
    # What this command wrote itself is as it wrote it: nobody else can until it ends.
    written: dict[int, Mapping[str, Any]] = connection.info.get(_RAISED, {})
    concerned = [server_id for server_id, delta in sorted(pending.items()) if delta % _MODULUS]
    table, seals = metadata.tables["servers"], seals_of(connection)
    given: list[dict[str, Any]] = []
    for start in range(0, len(concerned), AT_ONCE):
        some = concerned[start : start + AT_ONCE]
        rows = {number: written[number] for number in some if number in written}
        if unread := [number for number in some if number not in written]:
            rows |= {row["id"]: row for row in _locking_servers.rows(connection, unread)}
        for number, row in sorted(rows.items()):
            new = {**row, "of_id": number, "rows_sum": sum_of(connection, row)}
            new[SEAL] = seals.of(table, new) if number in written or seals.holds(table, row) else b""
            given.append(new)
    setting(table, ("rows_sum", SEAL)).run_many(connection, given)
    begin_counting(connection)


@prepared
def _locking_servers(ids: Sequence[int]) -> Select[Any]:
    table = metadata.tables["servers"]
    return select(table).where(among(table.c.id, ids)).order_by(table.c.id).with_for_update()


def sum_of(connection: Connection, server: Mapping[str, Any]) -> bytes | None:
    """The sum of a server with what was counted since, which counts no more; server: its row as it was."""
    pending: dict[int, int] = connection.info.get(_PENDING, {})
    delta = pending.pop(server["id"], 0)
    held: bytes | None = server["rows_sum"]
    if not delta % _MODULUS:
        return held
    return _bytes(_total(connection, server["id"], holding=True) if held is None else _int(held) + delta)


def note_written(connection: Connection, servers: Iterable[Mapping[str, Any]]) -> None:
    """Servers as this command wrote them: they need not be read again for what is counted later."""
    connection.info.setdefault(_RAISED, {}).update((row["id"], row) for row in servers if row[SEAL])


def fits(connection: Connection, server_id: int) -> bool:
    """Whether the rows of a server are all those that Keyrack wrote, as its own row has it.

    What was entered by others does not hold, and is left out; what was deleted or put back by others makes it False.
    """
    held = next((row["rows_sum"] for row in _sum_of_server.rows(connection, server_id)), None)
    if held is None:
        return True
    return any(held == _bytes(_total(connection, server_id, holding=holding)) for holding in (False, True))


@per_server
def _sum_of_server(server_ids: Sequence[int]) -> Select[Any]:
    table = metadata.tables["servers"]
    return select(table.c.id.label("server_id"), table.c.rows_sum).where(among(table.c.id, server_ids))


@cache
def _seals_of_server(table: Table) -> PerServer[[]]:
    return PerServer(
        lambda server_ids: select(table.c.server_id, table.c.seal).where(among(table.c.server_id, server_ids))
    )


def _total(connection: Connection, server_id: int, *, holding: bool) -> int:
    """The sum of the seals of a server's rows; holding: of those alone that are as Keyrack wrote them."""
    total = 0
    for name in sorted(OF_SERVER):
        table = metadata.tables[name]
        if holding:
            for row in connection.execute(select(table).where(table.c.server_id == server_id)):
                total += _int(row.seal) if holds(connection, table, row) else 0
        else:
            total += sum(_int(row["seal"]) for row in _seals_of_server(table).rows(connection, server_id))
    return total


def count(connection: Connection, table: Table, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> None:
    """Note for the sums that a row changed; old and new: None where there was or is none."""
    if table.name not in OF_SERVER:
        return
    for row, sign in ((old, -1), (new, 1)):
        if row is None or row["server_id"] is None:
            continue
        pending: dict[int, int] = connection.info.setdefault(_PENDING, {})
        seal = _int(row[SEAL])
        if sign < 0 and not seals_of(connection).holds(table, row):
            seal = _counted(connection, row["server_id"], seal, pending)
        pending[row["server_id"]] = pending.get(row["server_id"], 0) + sign * seal


def _counted(connection: Connection, server_id: int, seal: int, pending: Mapping[int, int]) -> int:
    """What a row that does not hold, and is gone by now, had added to the sum: the seal it carried, or nothing."""
    table = metadata.tables["servers"]
    held = connection.execute(select(table.c.rows_sum).where(table.c.id == server_id)).scalar()
    before = 0 if held is None else _int(held) + pending.get(server_id, 0)
    left = _total(connection, server_id, holding=False)
    return seal if held is not None and (before - left - seal) % _MODULUS == 0 else 0


def _int(seal: Any) -> int:
    return int.from_bytes(seal, "big") if isinstance(seal, bytes) else 0


def _bytes(total: int) -> bytes:
    return (total % _MODULUS).to_bytes(32, "big")


def _key_in(table: Table, where: Sequence[Any]) -> Mapping[str, Any] | None:
    """The primary key that conditions name and nothing else, as most do: such a question need not be made anew."""
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


_KEY_COLUMNS = {table.name: frozenset(table.primary_key) for table in TABLES}
_KEY_NAMES = {table.name: tuple(column.name for column in table.primary_key) for table in TABLES}


def _locked(connection: Connection, table: Table, *where: Any) -> Sequence[Mapping[str, Any]]:
    key = _key_in(table, where)
    if key is not None:
        return _locking(table).rows(connection, key)
    statement = select(table).where(*where)
    if connection.dialect.name == "postgresql":
        statement = statement.with_for_update()
    return [dict(row) for row in connection.execute(statement).mappings()]


def _key(table: Table, values: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(values[column.name] for column in table.primary_key)


def set_seals(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the seals that rows hold into the database; rows: with their primary keys."""
    named = [column.name for column in table.primary_key]
    given = ({**{f"of_{name}": row[name] for name in named}, SEAL: row[SEAL]} for row in rows)
    setting(table, (SEAL,)).run_many(connection, given)


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
    return encode(told).encode()


def column_names(table: Table) -> tuple[str, ...]:
    """The columns under a table's seal."""
    return tuple(name for name, _ in _SEALED[table.name])


def is_sealed(column: Column[Any]) -> bool:
    """Whether a column is under its table's seal."""
    return column.name in column_names(column.table)
