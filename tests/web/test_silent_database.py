"""A database whose server stands still without ending a connection: nobody waits for it for ever."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from keyrack.store.database import Database
from keyrack.store.engine import listen, silence
from tests.core.keys_for_tests import fresh_line
from tests.services import TEAM, running, settings_for
from tests.web.test_nonblocking import KEYS
from tests.web.test_runcloud import add as add_credential

SESSIONS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'keyrack'"
BOUND = 20.0  # for what takes two or three seconds


@pytest.fixture
def url(cluster: Any, migrated_template: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(silence, "SECONDS", 1.0)
    made = cluster.create_database(migrated_template)
    yield made
    cluster.drop_database(made)


@contextmanager
def standing_still(url: str) -> Iterator[None]:
    """All sessions of the database stand still meanwhile; new ones do not."""
    with closing(psycopg.connect(url, autocommit=True)) as other:
        processes = [pid for (pid,) in other.execute(SESSIONS).fetchall()]
    assert processes
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in processes:
            os.kill(pid, signal.SIGCONT)


def within_the_bound(pool: ThreadPoolExecutor, *calls: Any) -> list[Any]:
    began = time.monotonic()
    asked = [pool.submit(call) for call in calls]
    return [one.result(max(0.1, began + BOUND - time.monotonic())) for one in asked]


def test_calls_are_answered_and_later_ones_work(url: str, tmp_path: Path) -> None:
    with running(settings_for(tmp_path / "data", url)) as service, ThreadPoolExecutor(8) as pool:
        service.apply(TEAM)

        def add() -> int:
            status: int = add_credential(
                service, label=f"key-{time.monotonic_ns()}", publicKey=fresh_line()
            ).status_code
            return status

        def get() -> int:
            status: int = service.call("GET", KEYS, token="token-of-olga").status_code
            return status

        for _ in range(4):  # the first ones are answered by threads
            assert within_the_bound(pool, add, get, add, get) == [200] * 4
        with standing_still(url):
            began = time.monotonic()
            statuses = within_the_bound(pool, add, get, add, get, add, get)
            assert set(statuses) <= {200, 503}, statuses
            assert time.monotonic() - began > silence.SECONDS, "those that stood still were asked"
            assert within_the_bound(pool, add, get) == [200, 200]
        assert within_the_bound(pool, add, get) == [200, 200]


def test_a_thread_is_told_that_the_database_is_silent(url: str) -> None:
    """In either way in which a question is asked: what SQLAlchemy runs goes psycopg's own way."""
    with closing(Database.open(url)) as database, ThreadPoolExecutor(4) as pool:

        def read() -> Any:
            return database.read(lambda connection: connection.execute(text("SELECT 7")).scalar_one())

        def write() -> None:
            database.check()

        within_the_bound(pool, read, write)
        with standing_still(url):
            within_the_bound(pool, read, write, read, write)


def test_a_service_ends_beside_one_that_stands_still(url: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        database = Database.open(url)
        database.listen(lambda _: None)
        notify = database._writer._notifier.notify  # type: ignore[union-attr]
        notify()
        time.sleep(0.3)
        with standing_still(url):
            notify()
            within_the_bound(pool, database.close)


def test_the_listener_reconnects_to_a_silent_server(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "POLL_SECONDS", 0.2)
    monkeypatch.setattr(listen, "RECONNECT_SECONDS", 0.2)
    with closing(Database.open(url)) as database, closing(psycopg.connect(url, autocommit=True)) as other:
        database.listen(lambda _: None)
        before = {pid for (pid,) in other.execute(SESSIONS).fetchall()}
        with standing_still(url):
            until = time.monotonic() + BOUND
            while not {pid for (pid,) in other.execute(SESSIONS).fetchall()} - before:
                assert time.monotonic() < until
                time.sleep(0.1)
