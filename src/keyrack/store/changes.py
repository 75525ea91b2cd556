"""Which servers changed: commands announce it, and every process can ask for it; must wake nobody itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import BigInteger, Column, Connection, Integer, Table, text

from keyrack.store.engine.prepared import Statement
from keyrack.store.tables import metadata

if TYPE_CHECKING:
    import sqlite3

    import psycopg

# One row per server, updated at each change, so nothing ever needs clearing away. No foreign key: an agent that
# waits for a server that was deleted must be woken too. change is a counter on SQLite and, on PostgreSQL,
# the transaction's own number, because a sequence's numbers become visible out of order.
changes = Table(
    "changes",
    metadata,
    Column("server_id", Integer, primary_key=True, autoincrement=False),
    Column("change", BigInteger, nullable=False, index=True),
)

_ANNOUNCED = "keyrack_announced"


def announce(conn: Connection, server_id: int) -> None:
    """Announce, inside a write, that this server's revision changed; after the commit every listener is told.

    If the command raises, nothing is announced. An announcement inside a savepoint that is rolled back while the
    command goes on is delivered all the same: an agent is woken in vain, which costs one read.
    """
    announced: set[int] | None = conn.info.get(_ANNOUNCED)
    if announced is None:
        raise RuntimeError("announce() belongs inside a write.")
    announced.add(server_id)


def begin_announcing(conn: Connection) -> None:
    """Begin to collect a command's announcements."""
    conn.info[_ANNOUNCED] = set()


def announced(conn: Connection) -> frozenset[int]:
    """What the command under way announced so far."""
    return frozenset(conn.info.get(_ANNOUNCED, ()))


def end_announcing(conn: Connection) -> set[int]:
    """What the command announced; from here on announce() raises again."""
    announced: set[int] = conn.info.pop(_ANNOUNCED, set())
    return announced


def driver_connection(conn: Connection) -> sqlite3.Connection:
    """The driver's connection to SQLite below SQLAlchemy's, for statements that run with each commit."""
    return cast("sqlite3.Connection", conn.connection.dbapi_connection)


def record_on_sqlite(conn: Connection, server_ids: Iterable[int], change: int) -> None:
    """Write the announcements of commands that are committed together, under one number; needs the write lock."""
    driver_connection(conn).executemany(
        "INSERT INTO changes (server_id, change) VALUES (?, ?)"
        " ON CONFLICT (server_id) DO UPDATE SET change = excluded.change",
        [(server_id, change) for server_id in server_ids],
    )


def latest_on_sqlite(conn: Connection) -> int:
    """The highest number used so far; 0 before the first."""
    return int(driver_connection(conn).execute("SELECT COALESCE(MAX(change), 0) FROM changes").fetchone()[0])


def since_on_sqlite(conn: Connection, change: int) -> frozenset[int]:
    """The servers changed after that number."""
    rows = conn.exec_driver_sql("SELECT server_id FROM changes WHERE change > ?", (change,))
    return frozenset(row[0] for row in rows)


def record_on_postgresql(conn: Connection, server_ids: Iterable[int]) -> Callable[[], dict[int, int]]:
    """Write a transaction's announcements; call what it returns after the commit for the number of each server."""
    # In order, so that two transactions never wait for each other here.
    sent = _recording.enqueue(conn, {"given": sorted(server_ids)})
    return lambda: {row[0]: row[1] for row in sent.answer.fetchall()}


_recording = Statement(
    lambda: text(
        "INSERT INTO changes (server_id, change)"
        " SELECT unnest(CAST(:given_given AS int[])), pg_current_xact_id()::text::bigint"
        " ON CONFLICT (server_id) DO UPDATE SET change = excluded.change RETURNING server_id, change"
    )
)


def since_on_postgresql(raw: psycopg.Connection[Any], floor: int) -> tuple[int, dict[int, int]]:
    """The changes made by transactions numbered floor and up, and the floor to ask with next time.

    The next floor is the number of the oldest running transaction: it may commit a number below others that are
    visible already. So a change may be answered twice and is never left out. Numbers above the newest transaction's are
    ignored: they are from the cluster on which a restored dump was taken.
    """
    rows = raw.execute(
        "SELECT s.low, c.server_id, c.change"
        " FROM (SELECT pg_snapshot_xmin(n)::text::bigint AS low, pg_snapshot_xmax(n)::text::bigint AS high"
        "       FROM pg_current_snapshot() AS n) AS s"
        " LEFT JOIN changes AS c ON c.change >= %s AND c.change < s.high",
        (floor,),
    ).fetchall()
    return rows[0][0], {server_id: change for _, server_id, change in rows if server_id is not None}


def floor_on_postgresql(raw: psycopg.Connection[Any]) -> int:
    """The floor to ask with first, for a listener that starts now."""
    row = raw.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint").fetchone()
    assert row is not None
    return int(row[0])
