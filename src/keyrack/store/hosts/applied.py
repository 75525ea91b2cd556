"""Which revisions servers' hosts applied, for receipts of many at once; must decide nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, Table, select

from keyrack.store.engine.prepared import Prepared, among, prepared
from keyrack.store.sealing import receipts, sealed, sealed_sets
from keyrack.store.tables import offboarding_hosts, revocations, servers


@dataclass(frozen=True, slots=True)
class Applied:
    """One server: the revision that its host applied, 0 where none is proved, and since when; copied: whether two
    machines go by its host's identity; host: whether one was ever enrolled.
    """

    server_id: int
    server_name: str
    applied_revision: int
    applied_at: datetime | None
    copied: bool = False
    host: bool = True


def of(connection: Connection, server_ids: Iterable[int]) -> dict[int, Applied]:
    """By id what the hosts of these servers applied; those that are gone are missing."""
    found = {}
    for some in sealed_sets.chunks(sorted(set(server_ids))):
        for row in _rows.rows(connection, some):
            # Which machine a receipt is of stands in the row, under its seal.
            proved = sealed.seals_of(connection).holds(servers, row) and receipts.server_holds(connection, row)
            revision, at = (row["applied_revision"], row["applied_at"]) if proved else (0, None)
            host = row["agent_secret_hash"] is not None
            found[row["id"]] = Applied(row["id"], row["name"], revision, at, row["copied_at"] is not None, host)
    return found


@prepared
def _rows(server_ids: Sequence[int]) -> Select[Any]:
    # Not the facts, which are long.
    told = (servers.c[name] for name in receipts.NOTHING_APPLIED)
    return select(*sealed_sets.locked_columns(), *told).where(among(servers.c.id, server_ids))


def altered(connection: Connection, server_ids: Sequence[int]) -> list[int]:
    """Those of these servers of which others entered or changed a receipt: theirs, or of what they are to refuse or of
    who was removed. Each such row is remembered, so that an alarm names it.
    """
    found = {row["id"] for row in _rows.rows(connection, server_ids) if not receipts.server_holds(connection, row)}
    for table in (revocations, offboarding_hosts):
        for row in _acknowledged_in(table).rows(connection, server_ids):
            if not receipts.is_acknowledged(connection, table, row):
                found.add(row["server_id"])
    return sorted(found)


@cache
def _acknowledged_in(table: Table) -> Prepared[[Sequence[int]]]:
    def question(server_ids: Sequence[int]) -> Select[Any]:
        return select(table).where(among(table.c.server_id, server_ids), table.c.acknowledged_at.is_not(None))

    return Prepared(question)


def withdraw(connection: Connection, server_ids: Sequence[int]) -> None:
    """Have what others entered as acknowledged by the hosts of these servers be waited for again."""
    for row in _rows.rows(connection, server_ids):
        if not receipts.server_holds(connection, row):
            sealed.change(connection, servers, sealed.row_of(row["id"]), values=receipts.NOTHING_APPLIED)
    for table in (revocations, offboarding_hosts):
        for row in _acknowledged_in(table).rows(connection, server_ids):
            if not receipts.is_acknowledged(connection, table, row):
                key = sealed.row_of(*(row[name] for name in sealed.key_names(table)))
                sealed.change(connection, table, key, values={"acknowledged_at": None, receipts.RECEIPT: None})
