"""Sessions whose process stands still in the middle of a change are ended, and none that goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection

from keyrack.store.database import Database
from keyrack.store.engine import orphans
from keyrack.store.engine.execute import send
from keyrack.store.engine.orphans import OrphanedSessions
from tests.services import TEAM, running, settings_for
from tests.store.test_postgresql import names, put
from tests.waiting import wait_until

WORKSPACE = 1
SERVER = {"name": "new-1", "ipAddress": "192.0.2.77"}
LOCKED = """
    SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND objid = 1 AND granted AND state = 'active' AND wait_event = 'ClientRead'
      AND datname = current_database()
"""


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphans, "CHECK_SECONDS", 0.05)
    monkeypatch.setattr(orphans, "ORPHAN_SECONDS", 2)


def locked(url: str) -> bool:
    with psycopg.connect(url) as raw:
        row = raw.execute(LOCKED).fetchone()
    return row is not None and row[0] == 1


@contextmanager
def stopped(url: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has the lock of the workspace, and stands still."""
    words = [sys.executable, "-m", "tests.store.stopped_process", url, str(WORKSPACE)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            wait_until(lambda: locked(url), "the process to have the lock and stand still")
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            process.wait(60)


def test_a_stopped_process_keeps_no_workspace(postgresql_url: str) -> None:
    sessions = OrphanedSessions()
    with (
        Database.open(postgresql_url) as database,
        stopped(postgresql_url) as process,
        ThreadPoolExecutor(1) as pool,
    ):
        other = pool.submit(database.write, lambda conn: put(conn, "a"), workspace_lock=WORKSPACE)
        assert database.read(sessions.end) == 0
        assert not other.done()
        wait_until(lambda: database.read(sessions.end) == 1, "the session to be ended")
        other.result(20)
        assert database.read(names) >= {"a"}
        process.send_signal(signal.SIGCONT)
        assert process.communicate(timeout=60)[0] == "DatabaseUnavailable\n"


def test_a_running_service_ends_orphaned_sessions(postgresql_url: str, tmp_path: Path) -> None:
    with running(settings_for(tmp_path / "data", postgresql_url)) as service:
        service.apply(TEAM)
        with stopped(postgresql_url):
            changed = service.call("POST", "/api/v3/servers", token="token-of-olga", json=SERVER)
            assert changed.status_code < 300, changed.text


def test_a_slow_session_that_goes_on_is_left_alone(postgresql_url: str) -> None:
    """A statement now and then, each sent ahead, and a long one: for longer than nothing may come."""
    sessions, over, ended = OrphanedSessions(), threading.Event(), []

    def slowly(conn: Connection) -> None:
        until = time.monotonic() + 5
        while time.monotonic() < until:
            put(conn, f"slow {time.monotonic()}")
            send(conn)
            time.sleep(0.4)
        conn.exec_driver_sql("SELECT pg_sleep(4)")

    def watch(database: Database) -> None:
        while not over.wait(0.05):
            ended.append(database.read(sessions.end))

    with Database.open(postgresql_url) as database, ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch, database)
        try:
            database.write(slowly, workspace_lock=WORKSPACE)
        finally:
            over.set()
        watching.result(30)
    assert len(ended) > 20
    assert set(ended) == {0}


def test_sessions_of_other_programs_are_left_alone(postgresql_url: str) -> None:
    sessions = OrphanedSessions()
    with Database.open(postgresql_url) as database, psycopg.connect(postgresql_url) as raw:
        with raw.pipeline():
            raw.execute("SELECT pg_advisory_xact_lock(1, 1)")
            raw.pgconn.send_flush_request()
            raw.pgconn.flush()
            wait_until(lambda: locked(postgresql_url), "the session to wait")
            until = time.monotonic() + 4
            while time.monotonic() < until:
                assert database.read(sessions.end) == 0
                time.sleep(0.1)
        assert locked(postgresql_url) is False


def test_sqlite_has_no_orphaned_sessions(sqlite_url: str) -> None:
    with Database.open(sqlite_url) as database:
        assert database.read(OrphanedSessions().end) == 0
