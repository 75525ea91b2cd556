"""Questions about hosts that obey a later state than the database's: what is held back there; must decide nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, delete, insert, select

from keyrack.store.engine.prepared import among, prepared
from keyrack.store.sealing import sealed, sealed_sets, seals
from keyrack.store.tables import held_back, reported_documents

LINE, REVOKED, LOST, ACCOUNT = "line", "revoked", "lost", "account"
"""Kinds of rows. LINE: a key line that the database has and the host's last document did not; REVOKED: a key that the
host refused and the database does not; LOST: a line that the host's document had and the database has not; ACCOUNT:
something that the database asks for an account and the host's document did not."""


@dataclass(frozen=True, slots=True)
class HeldBack:
    """One difference. until: the end that the line had on the host, None if it had none or was not there.

    since: rows that were entered later are not held back; revision: the server's when this was noted; decided_at: when
    somebody decided that it stays held back; sound: whether the row is as Keyrack wrote it.
    """

    id: int
    server_id: int
    kind: str
    username: str
    public_key: str
    fingerprint: str
    options: tuple[str, ...]
    until: datetime | None
    name: str
    since: datetime
    revision: int
    decided_at: datetime | None
    sound: bool


def of_server(
    connection: Connection, server_id: int, *, after: int = 0, limit: int | None = None
) -> tuple[HeldBack, ...]:
    """What is held back on a server, in the order it was noted; after: only ids above this one."""
    statement = select(held_back).where(held_back.c.server_id == server_id, held_back.c.id > after)
    statement = statement.order_by(held_back.c.id).limit(limit)
    return tuple(
        HeldBack(
            **{
                **seals.unsealed(row),
                "options": tuple(row.options),
                "sound": sealed.sound(connection, held_back, row),
            }
        )
        for row in connection.execute(statement)
    )


def replace_all(connection: Connection, server_id: int, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace all that is held back on a server; rows: the columns of the table without server_id."""
    sealed.remove(connection, held_back, held_back.c.server_id == server_id)
    new = [{**row, "server_id": server_id} for row in rows]
    sealed.insert_rows(connection, held_back, new)


def remove(connection: Connection, ids: Iterable[int]) -> None:
    """Hold these back no longer."""
    sealed_sets.remove_among(connection, held_back, id=list(ids))


@prepared
def _locking(ids: Sequence[int]) -> Select[Any]:
    return select(held_back).where(among(held_back.c.id, ids)).order_by(held_back.c.id).with_for_update()


def keep(connection: Connection, ids: Iterable[int], at: datetime) -> None:
    """Note that somebody decided that these stay held back."""
    rows = _locking.rows(connection, list(ids))
    sealed_sets.change_many(connection, held_back, rows, lambda _: {"decided_at": at})


def add_piece(connection: Connection, server_id: int, number: int, text: str) -> None:
    """Keep a piece of a host's last document, by its number; number 0 replaces all that is kept."""
    there = reported_documents.c.server_id == server_id
    if number:
        there &= reported_documents.c.number == number
    connection.execute(delete(reported_documents).where(there))
    connection.execute(insert(reported_documents).values(server_id=server_id, number=number, text=text))


def pieces(connection: Connection, server_id: int) -> tuple[str, ...]:
    """The pieces of a host's last document that have come so far, in order."""
    statement = select(reported_documents.c.text).where(reported_documents.c.server_id == server_id)
    return tuple(connection.execute(statement.order_by(reported_documents.c.number)).scalars())


def forget_pieces(connection: Connection, server_id: int) -> None:
    """Delete the pieces of a host's document."""
    connection.execute(delete(reported_documents).where(reported_documents.c.server_id == server_id))
