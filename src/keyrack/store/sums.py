"""The sum of the seals of a server's rows, which its own row holds: shows what others deleted or put back; must change
no row but a server's own.

A row that somebody deletes or puts back as it was has a good seal or leaves none, but the sum fits no longer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, Table, select, update

from keyrack.store import access_tree
from keyrack.store.engine.prepared import Statement, among, placeholder, prepared
from keyrack.store.per_server import PerServer, per_server
from keyrack.store.schema import metadata
from keyrack.store.seals import OF_SERVER, SEAL, seals_of

AT_ONCE = 5_000  # rows read by one question, so that what is held in memory is bounded
_MODULUS = 2**256
_PENDING = "keyrack sums"
_RAISED = "keyrack servers"


def begin_counting(connection: Connection) -> None:
    """Start a command's counts afresh."""
    connection.info[_PENDING] = {}
    connection.info[_RAISED] = {}
    access_tree.begin(connection, reads=False)


@contextmanager
def counting(connection: Connection) -> Iterator[None]:
    """Around a savepoint: what is undone with it does not count."""
    info = connection.info  # which a connection that broke has no more
    before, noted = dict(info.get(_PENDING, {})), dict(access_tree.pending(connection))
    try:
        yield
    except BaseException:
        info[_PENDING] = before
        info[_RAISED] = {}
        access_tree.put_pending(info, noted)
        raise


def settle(connection: Connection) -> None:
    """Bring what a command changed into the sums of the servers concerned and into the tree, before it is committed."""
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
    access_tree.settle(connection)  # last: others wait for its root, and whoever holds that waits for nobody
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
    found = next(iter(_sum_of_server.rows(connection, server_id)), None)
    if found is None:
        return True
    if not access_tree.fits(connection, metadata.tables["servers"], found):
        return False  # it was deleted, and others put it back
    if (held := found["rows_sum"]) is None:
        return True
    return any(held == _bytes(_total(connection, server_id, holding=holding)) for holding in (False, True))


def sum_anew(connection: Connection, server_id: int) -> bytes:
    """Set the sum of a server to that of its rows which hold as they stand; answers it."""
    held = _bytes(_total(connection, server_id, holding=True))
    table = metadata.tables["servers"]
    connection.execute(update(table).where(table.c.id == server_id).values(rows_sum=held))
    connection.info[_RAISED] = {}
    return held


@per_server
def _sum_of_server(server_ids: Sequence[int]) -> Select[Any]:
    table = metadata.tables["servers"]
    columns = (table.c.id, table.c.workspace_id, table.c.host, table.c.rows_sum)
    return select(table.c.id.label("server_id"), *columns).where(among(table.c.id, server_ids))


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
                total += _int(row.seal) if seals_of(connection).holds(table, dict(row._mapping)) else 0
        else:
            plan, rows = _seals_of_server(table).raw(connection, server_id)
            at = plan.names.index(SEAL)
            total += sum([_int(values[at]) for values in rows])
    return total


def count(connection: Connection, table: Table, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> None:
    """Note for the sums and the tree that a row changed; old and new: None where there was or is none."""
    access_tree.note(connection, table, old, new)
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


@cache
def setting(table: Table, columns: tuple[str, ...]) -> Statement:
    """Sets columns of the row with a primary key, whose columns' names stand after of_."""
    named = [column == placeholder(column, f"of_{column.name}") for column in table.primary_key]
    values = {name: placeholder(table.c[name]) for name in columns}
    return Statement(lambda: update(table).where(*named).values(values))
