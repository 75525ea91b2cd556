"""What is SQLite's own: commits that are shared, a full disk, a file nobody else may read."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, select
from sqlalchemy.engine import URL, make_url

from keyrack.store.changes import announce, changes
from keyrack.store.database import Database, DatabaseUnavailable
from keyrack.store.engine.connect import DatabaseFull, sqlite_engine
from keyrack.store.tables import instance_facts
from tests.store.no_threads import no_threads


def put(conn: Connection, name: str, size: int = 1) -> None:
    conn.execute(insert(instance_facts).values(name=name, value="x" * size))


def test_commands_that_wait_are_committed_together(sqlite_url: str) -> None:
    lock_held, go_on = threading.Event(), threading.Event()

    def hold(conn: Connection) -> None:
        announce(conn, 1000)
        lock_held.set()
        go_on.wait(60)

    with Database.open(sqlite_url) as database, ThreadPoolExecutor(21) as pool:
        first = pool.submit(database.write, hold)
        lock_held.wait(60)
        others = [pool.submit(database.write, lambda conn, n=n: announce(conn, n)) for n in range(20)]
        assert not any(other.done() for other in others)
        go_on.set()
        for waiting in (first, *others):
            waiting.result(60)
        # Each commit gives its announcements one number.
        numbers = database.read(lambda conn: conn.execute(select(changes.c.change).distinct()).scalars().all())
    assert 2 <= len(numbers) <= 20


def test_a_full_disk_is_reported_as_such_and_room_heals_it(sqlite_url: str) -> None:
    def fill(conn: Connection) -> None:
        pages = conn.exec_driver_sql("PRAGMA page_count").scalar_one()
        conn.exec_driver_sql(f"PRAGMA max_page_count = {pages + 2}")
        put(conn, "small")
        put(conn, "large", 1_000_000)

    with Database.open(sqlite_url) as database:
        database.write(lambda conn: put(conn, "before"))
        with pytest.raises(DatabaseFull, match="full"):
            database.write(fill)
        # The limit was the connection's own; a new one was opened after the failure.
        database.write(lambda conn: put(conn, "large", 1_000_000))
        names = database.read(lambda conn: set(conn.execute(select(instance_facts.c.name)).scalars()))
    assert names == {"before", "large"}


def test_foreign_keys_are_enforced_and_commits_are_synced(sqlite_url: str) -> None:
    with Database.open(sqlite_url) as database:

        def settings(conn: Connection) -> list[object]:
            return [
                conn.exec_driver_sql(f"PRAGMA {name}").scalar_one()
                for name in ("foreign_keys", "synchronous", "journal_mode")
            ]

        assert database.write(settings) == [1, 2, "wal"]


def test_only_the_owner_may_read_the_file(tmp_path: Path) -> None:
    path = tmp_path / "keyrack.db"
    with Database.open(f"sqlite:///{path}") as database:
        database.write(lambda conn: conn.exec_driver_sql("CREATE TABLE t (a INTEGER)"))
        for part in tmp_path.iterdir():
            assert stat.S_IMODE(part.stat().st_mode) == 0o600, part.name


_CHANGE_MANY_PAGES = """
import sys
from sqlalchemy import update
from keyrack.store.database import Database
from keyrack.store.tables import instance_facts
from tests.store.no_threads import no_threads

def change(conn):
    with conn.begin_nested():
        conn.execute(update(instance_facts).values(value="y" * 2000))

with Database.open(sys.argv[1]) as database:
    database.write(change)
"""


def test_changes_are_accepted_while_the_temporary_folder_is_full(sqlite_url: str, tmp_path: Path) -> None:
    full = tmp_path / "temporary"
    full.mkdir()
    disk = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(full)]
    if subprocess.run(disk, check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        with suppress(OSError), (full / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(4096))
        with Database.open(sqlite_url) as database:
            for number in range(100):
                database.write(lambda conn, number=number: put(conn, f"{number}", 2000))  # type: ignore[misc]
        # SQLite looks for the folder once in a process.
        environment = {**os.environ, "SQLITE_TMPDIR": str(full)}
        subprocess.run([sys.executable, "-c", _CHANGE_MANY_PAGES, sqlite_url], check=True, env=environment)
    finally:
        subprocess.run(["umount", "-l", full], check=True)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with Database.open(f"sqlite:///{tmp_path}/nowhere/keyrack.db") as database:
        for use in (database.read, database.write):
            with pytest.raises(DatabaseUnavailable, match=r"nowhere/keyrack\.db: No such file or directory"):
                use(lambda conn: None)


def test_a_command_that_starts_another_write_fails_instead_of_waiting_for_itself(sqlite_url: str) -> None:
    with Database.open(sqlite_url) as database, pytest.raises(RuntimeError, match="wait for itself"):
        database.write(lambda conn: database.write(lambda inner: None))


def test_many_that_open_a_new_file_at_once_all_get_it(tmp_path: Path) -> None:
    for number in range(60):
        url = make_url(f"sqlite:///{tmp_path}/{number}.db")
        together = threading.Barrier(6)

        def journal_mode(url: URL = url, together: threading.Barrier = together) -> str:
            together.wait(60)
            with sqlite_engine(url, writer=False).connect() as conn:
                return str(conn.exec_driver_sql("PRAGMA journal_mode").scalar_one())

        with ThreadPoolExecutor(6) as pool:
            assert [asked.result(60) for asked in [pool.submit(journal_mode) for _ in range(6)]] == ["wal"] * 6


def test_writes_go_on_where_the_first_found_no_thread(sqlite_url: str) -> None:
    made = threading.Event()
    with Database.open(sqlite_url) as database:

        def write() -> None:
            database.write(lambda conn: put(conn, "second"))
            made.set()

        with no_threads(), pytest.raises(RuntimeError, match="thread"):
            database.write(lambda conn: put(conn, "first"))
        threading.Thread(target=write, daemon=True).start()
        assert made.wait(60)
        names = database.read(lambda conn: conn.execute(select(instance_facts.c.name)).scalars().all())
    assert "second" in names
    assert "first" not in names
