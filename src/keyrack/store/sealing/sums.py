"""The sum over the seals of a server's rows, kept in the server's own row: shows that others deleted or put back rows;
must change no row but the server's.

A row that others put back has a good seal, and a deleted row leaves no trace, but the sum no longer fits. Each row adds
a keyed hash of its seal, and the sum is stored under a mask that is new each time. So a reader of the database does not
learn what a row adds, and cannot search for other rows that add the same.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, Table, select, update

from keyrack.store.chunks import chunks
from keyrack.store.engine.prepared import Statement, among, placeholder, prepared
from keyrack.store.per_server import PerServer, per_server
from keyrack.store.sealing import access_tree
from keyrack.store.sealing.seals import OF_SERVER, SEAL, Seals, seals_of
from keyrack.store.sealing.tree_nodes import Place, SumChange
from keyrack.store.tables import metadata

NOTHING = bytes(32)
"""The sum of a server none of whose rows was counted yet."""
_NONCE = 16
_WIDTH = _NONCE + 32
_MAX_SUMMANDS = 100_000  # some 230 bytes each
BATCH_SIZE = 5_000  # rows read by one question, so that what is held in memory is bounded
_MODULUS = 2**256
_PENDING = "keyrack sums"
_WRITTEN = "keyrack written servers"


def begin_counting(connection: Connection, noted: Mapping[Place, SumChange] | None = None) -> None:
    """Reset the counts for a command; noted: changes of the tree that earlier commands deferred."""
    info = connection.info
    info[_PENDING] = {}
    info[_WRITTEN] = {}
    access_tree.begin(connection, reads=False)
    if noted:
        access_tree.put_pending(info, noted)


@contextmanager
def counting(connection: Connection) -> Iterator[None]:
    """Around a savepoint: drops the counts of changes that are rolled back with it."""
    info = connection.info  # kept here, as a broken connection no longer has it
    before, noted = dict(info.get(_PENDING, {})), dict(access_tree.pending(connection))
    try:
        yield
    except BaseException:
        info[_PENDING] = before
        info[_WRITTEN] = {}
        access_tree.put_pending(info, noted)
        raise


def settle(connection: Connection) -> None:
    """Write the changes that a command noted into the servers' sums and the tree, before its commit."""
    settle_servers(connection)
    access_tree.settle(connection)  # last, as it locks the root: whoever has that lock must wait for no other
    begin_counting(connection)


def settle_servers(connection: Connection) -> None:
    """The same for the sums alone."""
    pending: dict[int, int] = connection.info.get(_PENDING, {})
    # Rows that this command wrote are locked by it, so they need not be read again.
    written: dict[int, Mapping[str, Any]] = connection.info.get(_WRITTEN, {})
    concerned = [server_id for server_id, delta in sorted(pending.items()) if delta % _MODULUS]
    table, seals = metadata.tables["servers"], seals_of(connection)
    given: list[dict[str, Any]] = []
    for some in chunks(concerned, BATCH_SIZE):
        rows = {number: written[number] for number in some if number in written}
        if unread := [number for number in some if number not in written]:
            rows |= {row["id"]: row for row in _locking_servers.rows(connection, unread)}
        for number, row in sorted(rows.items()):
            new = {**row, "of_id": number, "rows_sum": sum_of(connection, row)}
            new[SEAL] = seals.of(table, new) if number in written or seals.holds(table, row) else b""
            given.append(new)
    if given:
        setting(table, ("rows_sum", SEAL), there=True).run_many(connection, given)


@prepared
def _locking_servers(ids: Sequence[int]) -> Select[Any]:
    table = metadata.tables["servers"]
    return select(table).where(among(table.c.id, ids)).order_by(table.c.id).with_for_update()


def sum_of(connection: Connection, server: Mapping[str, Any]) -> bytes | None:
    """The sum of a server with the changes noted since, which are then no longer pending; server: its row before."""
    pending: dict[int, int] = connection.info.get(_PENDING, {})
    delta = pending.pop(server["id"], 0)
    held: bytes | None = server["rows_sum"]
    if not delta % _MODULUS:
        return held
    seals = seals_of(connection)
    if held is None:
        return _hidden(seals, server["id"], _total(connection, server["id"], holding=True))
    before = _shown(seals, server["id"], held)
    # A malformed sum stays malformed, so that it is found.
    return held if before is None else _hidden(seals, server["id"], before + delta)


def tells_changes(held: bytes | None) -> bool:
    """Whether a server's stored sum differs after each change of its rows, which one without a mask need not."""
    return held is not None and len(held) == _WIDTH


def taken(connection: Connection, server_id: int) -> int:
    """Remove and return the pending change of a server's sum, to be given to put_back later."""
    pending: dict[int, int] = connection.info.get(_PENDING, {})
    return pending.pop(server_id, 0)


def put_back(connection: Connection, server_id: int, added: int) -> None:
    """Make a change that was taken pending again, for this command."""
    pending: dict[int, int] = connection.info.setdefault(_PENDING, {})
    pending[server_id] = pending.get(server_id, 0) + added


def note_written(connection: Connection, servers: Iterable[Mapping[str, Any]]) -> None:
    """Keep servers' rows as this command wrote them, so that settling need not read them again."""
    connection.info.setdefault(_WRITTEN, {}).update((row["id"], row) for row in servers if row[SEAL])


def last_written(connection: Connection, server_id: int) -> Mapping[str, Any] | None:
    """A server's row as this command wrote it; None where it did not write the whole row."""
    written: dict[int, Mapping[str, Any]] = connection.info.get(_WRITTEN, {})
    return written.get(server_id)


def fits(connection: Connection, server_id: int) -> bool:
    """Whether the rows of a server make up the sum in its own row.

    Rows that others entered are left out, as their seals do not hold. False where others deleted or put back rows.
    """
    row = next(iter(_sum_of_server.rows(connection, server_id)), None)
    if row is None:
        return True
    if not access_tree.fits(connection, metadata.tables["servers"], row):
        return False  # Keyrack deleted the server, and others put it back
    if (held := row["rows_sum"]) is None:
        return True
    total = _shown(seals_of(connection), server_id, held)
    if total is None:
        return False
    # Changes of this command are not in the stored sum before it settles.
    total += connection.info.get(_PENDING, {}).get(server_id, 0)
    return any((total - _total(connection, server_id, holding=holding)) % _MODULUS == 0 for holding in (False, True))


def sum_anew(connection: Connection, server_id: int) -> bytes:
    """Set the sum of a server to that of its rows whose seals hold now; returns it as stored."""
    held = _hidden(seals_of(connection), server_id, _total(connection, server_id, holding=True))
    table = metadata.tables["servers"]
    connection.execute(update(table).where(table.c.id == server_id).values(rows_sum=held))
    connection.info[_WRITTEN] = {}
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
    """The sum of what a server's rows add; holding: of those alone whose seals hold."""
    total, seals = 0, seals_of(connection)
    for name in sorted(OF_SERVER):
        table = metadata.tables[name]
        if holding:
            for row in connection.execute(select(table).where(table.c.server_id == server_id)):
                total += _summand(seals, row.seal) if seals.holds(table, dict(row._mapping)) else 0
        else:
            plan, rows = _seals_of_server(table).raw(connection, server_id)
            at = plan.names.index(SEAL)
            total += sum([_summand(seals, values[at]) for values in rows])
    return total


def count(
    connection: Connection,
    table: Table,
    old: Mapping[str, Any] | None,
    new: Mapping[str, Any] | None,
    *,
    held: bool | None = None,
) -> None:
    """Note for the sums and the tree that a row changed; old and new: None where there was or is no row.

    held: whether the old row's seal holds, if this transaction checked it already.
    """
    access_tree.note(connection, table, old, new)
    if old is not None:
        seals_of(connection).forget(table, old)
    if table.name not in OF_SERVER:
        return
    for row, sign in ((old, -1), (new, 1)):
        if row is None or row["server_id"] is None:
            continue
        pending: dict[int, int] = connection.info.setdefault(_PENDING, {})
        # Not kept in memory: only making a host's document needs it again, and there may be no host.
        summand = _summand(seals_of(connection), row[SEAL], keep=False)
        if sign < 0 and not (seals_of(connection).holds(table, row) if held is None else held):
            summand = _counted(connection, row["server_id"], summand, pending)
        pending[row["server_id"]] = pending.get(row["server_id"], 0) + sign * summand


def count_new(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """The same for many new rows; faster where only the sums of servers count them."""
    if table.name not in OF_SERVER or table.name in access_tree.TREES:
        for row in rows:
            count(connection, table, None, row)
        return
    seals, pending = seals_of(connection), connection.info.setdefault(_PENDING, {})
    for row in rows:
        if (server_id := row["server_id"]) is not None:
            pending[server_id] = pending.get(server_id, 0) + _summand(seals, row[SEAL], keep=False)


def _counted(connection: Connection, server_id: int, summand: int, pending: Mapping[int, int]) -> int:
    """What a deleted row whose seal does not hold had added to the sum: what its seal adds, or 0."""
    table = metadata.tables["servers"]
    held = connection.execute(select(table.c.rows_sum).where(table.c.id == server_id)).scalar()
    shown = None if held is None else _shown(seals_of(connection), server_id, held)
    left = _total(connection, server_id, holding=False)
    return summand if shown is not None and (shown + pending.get(server_id, 0) - left - summand) % _MODULUS == 0 else 0


def hide_older(connection: Connection) -> int:
    """Convert the sums of an older database, which added up the seals themselves without a mask. Returns how many were
    converted; a sum that does not fit stays as it is.
    """
    table, seals, given = metadata.tables["servers"], seals_of(connection), []
    for row in connection.execute(select(table).where(table.c.rows_sum.is_not(None))).mappings().all():
        if len(row["rows_sum"]) != len(NOTHING) or row["rows_sum"] == NOTHING or not seals.holds(table, dict(row)):
            continue
        if row["rows_sum"] in (_of_seals(connection, row["id"], holding) for holding in (False, True)):
            total = _total(connection, row["id"], holding=True)
            new = {**row, "of_id": row["id"], "rows_sum": _hidden(seals, row["id"], total)}
            given.append({**new, SEAL: seals.of(table, new)})
    setting(table, ("rows_sum", SEAL), there=True).run_many(connection, given)
    return len(given)


def _of_seals(connection: Connection, server_id: int, holding: bool) -> bytes:
    """A sum in the older form."""
    seals, total = seals_of(connection), 0
    for name in OF_SERVER:
        table = metadata.tables[name]
        for row in connection.execute(select(table).where(table.c.server_id == server_id)).mappings():
            if isinstance(row[SEAL], bytes) and (not holding or seals.holds(table, dict(row))):
                total += int.from_bytes(row[SEAL], "big")
    return (total % _MODULUS).to_bytes(32, "big")


def _summand(seals: Seals, seal: Any, *, keep: bool = True) -> int:
    """What a row adds to the sum of its server; keep: remember it in memory."""
    if not isinstance(seal, bytes) or not seal:
        return 0
    if (known := seals.summands.get(seal)) is None:
        known = int.from_bytes(seals.mac(b"what a server's row adds " + seal), "big")
        if keep:
            if len(seals.summands) >= _MAX_SUMMANDS:
                seals.summands.clear()
            seals.summands[seal] = known
    return known


def _mask(seals: Seals, server_id: int, nonce: bytes) -> int:
    return int.from_bytes(seals.mac(f"mask of server {server_id} ".encode() + nonce), "big")


def _hidden(seals: Seals, server_id: int, total: int) -> bytes:
    """A sum under a new mask, as the server's row stores it."""
    nonce = secrets.token_bytes(_NONCE)
    return nonce + ((total + _mask(seals, server_id, nonce)) % _MODULUS).to_bytes(32, "big")


def _shown(seals: Seals, server_id: int, held: bytes) -> int | None:
    """The sum that a server's row stores, without its mask; None where it is malformed."""
    if held == NOTHING:
        return 0
    if len(held) != _WIDTH:
        return None
    return (int.from_bytes(held[_NONCE:], "big") - _mask(seals, server_id, held[:_NONCE])) % _MODULUS


@cache
def setting(table: Table, columns: tuple[str, ...], *, there: bool = False) -> Statement:
    """An UPDATE of columns of the row with a primary key; its parameters are the columns, and those of the key with the
    prefix of_. there: the row is known to be there, so that it is an error if none is updated.
    """
    named = [column == placeholder(column, f"of_{column.name}") for column in table.primary_key]
    values = {name: placeholder(table.c[name]) for name in columns}
    return Statement(lambda: update(table).where(*named).values(values), one=there)
