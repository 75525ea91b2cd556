"""Which revisions servers' hosts applied, for receipts of many at once; must decide nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, Table, select

from keyrack.store.chunks import chunks
from keyrack.store.engine.prepared import Prepared, among, prepared
from keyrack.store.sealing import receipts, sealed, sealed_sets
from keyrack.store.sealing.seals import VOLATILE, seals_of
from keyrack.store.sealing.sums import BATCH_SIZE
from keyrack.store.tables import offboarding_hosts, revocations, servers


@dataclass(frozen=True, slots=True)
class Applied:
    """One server: the revision that its host applied, 0 where no receipt proves one, and since when; two_machines:
    whether two machines use its host's identity; has_host: whether a host was ever enrolled.
    """

    server_id: int
    server_name: str
    applied_revision: int
    applied_at: datetime | None
    two_machines: bool = False
    has_host: bool = True


def of(connection: Connection, server_ids: Iterable[int]) -> dict[int, Applied]:
    """By id what the hosts of these servers applied; servers that are gone are left out."""
    applied = {}
    for some in chunks(sorted(set(server_ids)), BATCH_SIZE):
        for row in _rows.rows(connection, some):
            # The receipt names the host's machine, which is in the row, under its seal.
            proved = seals_of(connection).holds(servers, row) and receipts.server_holds(connection, row)
            revision, at = (row["applied_revision"], row["applied_at"]) if proved else (0, None)
            has_host = row["agent_secret_hash"] is not None
            applied[row["id"]] = Applied(row["id"], row["name"], revision, at, row["copied_at"] is not None, has_host)
    return applied


@prepared
def _rows(server_ids: Sequence[int]) -> Select[Any]:
    # Not the facts, which are long.
    acknowledgement = (servers.c[name] for name in receipts.NOTHING_APPLIED if name in VOLATILE[servers.name])
    return select(*sealed_sets.locked_columns(), *acknowledgement).where(among(servers.c.id, server_ids))


AlteredReceipts = dict[int, list[tuple[Table, tuple[Any, ...]]]]
"""By server the rows, each by its table and key, in which others wrote, changed or deleted a receipt."""


def altered(connection: Connection, server_ids: Sequence[int]) -> AlteredReceipts:
    """The rows of these servers in which others altered receipts: the servers' own, their revocations' and those of
    offboardings. Each such row is remembered for an alarm.

    A deleted receipt is noticed by the others: a host acknowledges everything up to some revision at once, so nothing
    below that revision may still wait, and nothing at all where it obeys the newest one. If all receipts of a host are
    deleted, its server's row still says that there was one.
    """
    altered_rows: AlteredReceipts = {}
    obeyed: dict[int, receipts.Until] = {}
    for row in _rows.rows(connection, server_ids):
        if not receipts.server_holds(connection, row):
            altered_rows[row["id"]] = [(servers, (row["id"],))]
        elif row["applied_revision"] == row["revision"] and seals_of(connection).holds(servers, row):
            obeyed[row["id"]] = (row["revision"] + 1, "")
    for table in (revocations, offboarding_hosts):
        for other in _altered_receipts(connection, table, server_ids, dict(obeyed)):
            key = tuple(other[name] for name in sealed.key_names(table))
            altered_rows.setdefault(other["server_id"], []).append((table, key))
    return altered_rows


def _altered_receipts(
    connection: Connection, table: Table, server_ids: Sequence[int], until: dict[int, receipts.Until]
) -> Iterator[Mapping[str, Any]]:
    """The rows whose receipts others wrote, and those whose receipts they deleted; until: by server the place below
    which nothing may wait, as far as it is known already.
    """
    for row in _acknowledged_in(table).rows(connection, server_ids):
        bound = receipts.acknowledged_until(connection, table, row)
        if bound is None:
            yield row
        else:
            until[row["server_id"]] = max(until.get(row["server_id"], bound), bound)
    if not until:
        return
    for row in _waiting(table).rows(connection, server_ids, max(until.values())[0]):
        bound = until.get(row["server_id"])
        if bound is not None and receipts.place(row) < bound and sealed.sound(connection, table, row):
            receipts.note(connection, table, row)
            yield row


@cache
def _acknowledged_in(table: Table) -> Prepared[[Sequence[int]]]:
    def question(server_ids: Sequence[int]) -> Select[Any]:
        return select(table).where(among(table.c.server_id, server_ids), table.c.acknowledged_at.is_not(None))

    return Prepared(question)


@cache
def _waiting(table: Table) -> Prepared[[Sequence[int], int]]:
    def question(server_ids: Sequence[int], most: int) -> Select[Any]:
        waits = (table.c.acknowledged_at.is_(None), table.c.revision <= most)
        return select(table).where(among(table.c.server_id, server_ids), *waits)

    return Prepared(question)


def withdraw(connection: Connection, altered_rows: AlteredReceipts, revisions: Mapping[int, int]) -> None:
    """Wait again for the acknowledgement of these rows; revisions: by server the one that its host is asked for now,
    so that what waits is above what it acknowledged.
    """
    for server_id, rows in altered_rows.items():
        for table, key in rows:
            values = {"acknowledged_at": None, receipts.RECEIPT: None, "revision": revisions[server_id]}
            sealed.change(
                connection, table, sealed.row_of(*key), values=receipts.NOTHING_APPLIED if table is servers else values
            )
