"""How processes on one PostgreSQL wake each other."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import psycopg
import pytest

from keyrack.store.changes import announce
from keyrack.store.database import Database
from keyrack.store.engine import listen
from tests.store.no_threads import no_threads
from tests.waiting import wait_until

NEWS = range(1, 41)


@pytest.fixture(autouse=True)
def _notified_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without polling, so that a change is heard of by a notification alone."""
    monkeypatch.setattr(listen, "POLL_SECONDS", 3600)


def tell(database: Database, server_id: int) -> None:
    database.write(lambda conn: announce(conn, server_id))


def waits_of(name: str) -> int:
    """How often a thread of ours waited so far (proc_pid_status(5))."""
    (thread,) = (one for one in threading.enumerate() if one.name == name)
    lines = Path(f"/proc/self/task/{thread.native_id}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


def test_changes_of_a_burst_share_a_notification(postgresql_url: str) -> None:
    heard: set[int] = set()
    with Database.open(postgresql_url) as database, Database.open(postgresql_url) as other:
        database.listen(lambda _: None)
        other.listen(heard.update)
        tell(database, NEWS[0])
        wait_until(lambda: heard == {NEWS[0]}, "the first notification, which the thread connects for")
        time.sleep(0.1)  # until it waits again
        before = waits_of("keyrack-notifier")
        for server_id in NEWS[1:]:
            tell(database, server_id)
            time.sleep(0.01)
        wait_until(lambda: heard == {*NEWS}, "all news")
        assert waits_of("keyrack-notifier") - before < 2 * len(NEWS), "two or three for a notification"


def test_the_first_change_after_a_pause_and_the_last_ones_are_notified_at_once(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listen, "NOTIFY_PAUSE_SECONDS", 600)
    heard: set[int] = set()
    with Database.open(postgresql_url) as other:
        other.listen(heard.update)
        with Database.open(postgresql_url) as database:
            tell(database, 1)
            wait_until(lambda: heard == {1}, "the first notification")
            tell(database, 2)
        wait_until(lambda: heard == {1, 2}, "the last one, as the database was closed")


def test_no_change_is_lost_that_comes_right_after_another(postgresql_url: str) -> None:
    heard: set[int] = set()
    with Database.open(postgresql_url) as database, Database.open(postgresql_url) as other:
        other.listen(heard.update)
        for server_id in NEWS:
            tell(database, server_id)
        wait_until(lambda: heard == {*NEWS}, "all news")
        for server_id in range(101, 121):  # each by a notification of its own, the last ones of a pair too soon
            tell(database, server_id)
            tell(database, 1000 + server_id)
            wait_until(lambda: {server_id, 1000 + server_id} <= heard, "both")  # noqa: B023


def test_the_notifier_connects_again(postgresql_url: str) -> None:
    heard: set[int] = set()
    with (
        Database.open(postgresql_url) as database,
        Database.open(postgresql_url) as other,
        psycopg.connect(postgresql_url, autocommit=True) as raw,
    ):
        other.listen(heard.update)
        tell(database, NEWS[0])
        wait_until(lambda: heard == {NEWS[0]}, "the first notification")
        ended = raw.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query LIKE 'NOTIFY%'"
        ).fetchall()
        assert ended == [(True,)]
        numbers = iter(range(2, 1000))

        def again() -> bool:
            tell(database, next(numbers))  # one whose notification failed is heard of with the next
            time.sleep(2 * listen.NOTIFY_PAUSE_SECONDS)
            return len(heard) > 1

        wait_until(again, "a notification by another connection")


def test_a_change_counts_and_later_ones_are_notified_where_a_thread_could_not_be_started(postgresql_url: str) -> None:
    heard: set[int] = set()
    with Database.open(postgresql_url) as other:
        other.listen(heard.update)
        with Database.open(postgresql_url) as database, no_threads():
            tell(database, 1)
        with Database.open(postgresql_url) as database:
            with no_threads():
                tell(database, 2)
            tell(database, 3)
            wait_until(lambda: heard == {1, 2, 3}, "what was changed without a thread is heard of with the next")
