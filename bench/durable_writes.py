"""How many durable inserts a second Database.write makes, next to the drivers alone in the same run.

Run: bench/durable_writes.py [seconds a measurement] (PostgreSQL's programs must be installed).
Each rival commits every insert by itself with the same settings for durability, on the same disk.
"""

from __future__ import annotations

import itertools
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
from sqlalchemy import Connection, insert
from usage import help_asked

sys.path.insert(0, str(Path(__file__).parent.parent))

from keyrack.store.database import Database, announce
from keyrack.store.engine import migrate
from keyrack.store.engine.connect import parse_url, postgresql_connection
from keyrack.store.tables import instance_facts
from tests.postgres import running_cluster

Act = Callable[[], object]
INSERT = "INSERT INTO instance_facts (name, value) VALUES ({0}, {0})"

numbers = itertools.count()


def rate(threads: int, seconds: float, make_act: Callable[[], tuple[Act, Act]]) -> float:
    """Acts a second by that many threads together; make_act gives each thread its act and its end."""
    counts = [0] * threads
    start = threading.Barrier(threads + 1)
    stop = threading.Event()

    def work(thread: int) -> None:
        act, end = make_act()
        start.wait()
        while not stop.is_set():
            act()
            counts[thread] += 1
        end()

    workers = [threading.Thread(target=work, args=(thread,)) for thread in range(threads)]
    for worker in workers:
        worker.start()
    start.wait()
    began = time.perf_counter()
    time.sleep(seconds)
    stop.set()
    for worker in workers:
        worker.join()
    return sum(counts) / (time.perf_counter() - began)


def ours(database: Database, *, announcing: bool) -> Callable[[], tuple[Act, Act]]:
    """An insert through Database.write, with or without a server to announce."""

    def command(conn: Connection) -> None:
        number = next(numbers)
        conn.execute(insert(instance_facts), {"name": f"n{number}", "value": "x"})
        if announcing:
            announce(conn, number % 1000)

    return lambda: (lambda: database.write(command), lambda: None)


def raw_sqlite(path: Path) -> Callable[[], tuple[Act, Act]]:
    """An insert and its commit through sqlite3 itself, a connection a thread."""

    def make() -> tuple[Act, Act]:
        raw = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
        raw.execute("PRAGMA journal_mode = WAL")
        raw.execute("PRAGMA synchronous = FULL")
        statement = INSERT.format("?")
        return lambda: raw.execute(statement, (name := f"n{next(numbers)}", name)), raw.close

    return make


def raw_psycopg(url: str, *also: str) -> Callable[[], tuple[Act, Act]]:
    """A transaction with an insert (and other statements) through psycopg itself, a connection a thread."""

    def make() -> tuple[Act, Act]:
        raw: psycopg.Connection[object] = postgresql_connection(parse_url(url)[1])
        statement = INSERT.format("%s")

        def act() -> None:
            name = f"n{next(numbers)}"
            with raw.transaction():
                raw.execute(statement, (name, name))
                for other in also:
                    raw.execute(other)

        return act, raw.close

    return make


def report(
    title: str, threads: int, seconds: float, rival: str, makers: dict[str, Callable[[], tuple[Act, Act]]]
) -> None:
    """Measure each in turn and print its rate beside the rival's."""
    rates = {name: rate(threads, seconds, make) for name, make in makers.items()}
    print(f"\n{title}, {threads} thread{'s' if threads > 1 else ''}")
    for name, value in rates.items():
        print(f"  {name:<38}{value:>9,.0f} /s   x {value / rates[rival]:.2f}")


def main() -> None:
    """Measure both databases with one thread and with 32."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    with tempfile.TemporaryDirectory(prefix="keyrack-bench-", dir="/var/tmp") as folder:
        path = Path(folder) / "keyrack.db"
        url = f"sqlite:///{path}"
        migrate.upgrade(url)
        for threads in (1, 32):
            with Database.open(url) as database:
                makers = {
                    "sqlite3, a commit each": raw_sqlite(path),
                    "Database.write": ours(database, announcing=False),
                    "Database.write, announcing a server": ours(database, announcing=True),
                }
                report("SQLite", threads, seconds, "sqlite3, a commit each", makers)
    with running_cluster(durable=True) as cluster:
        url = cluster.create_database()
        migrate.upgrade(url)
        for threads in (1, 32):
            with Database.open(url) as database:
                makers = {
                    "psycopg, a transaction each": raw_psycopg(url),
                    "psycopg, a NOTIFY in each": raw_psycopg(url, "NOTIFY bench"),
                    "Database.write": ours(database, announcing=False),
                    "Database.write, announcing a server": ours(database, announcing=True),
                }
                report("PostgreSQL", threads, seconds, "psycopg, a transaction each", makers)


if __name__ == "__main__":
    help_asked(__doc__)
    main()
