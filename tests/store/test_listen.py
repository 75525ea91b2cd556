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

CHANGES = range(1, 41)


@pytest.fixture(autouse=True)
def _notified_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without polling, so that a change is noticed by a notification alone."""
    monkeypatch.setattr(listen, "POLL_SECONDS", 3600)


def announce_change(database: Database, server_id: int) -> None:
    database.write(lambda conn: announce(conn, server_id))


def waits_of(name: str) -> int:
    """How often a thread of ours waited so far (proc_pid_status(5))."""
    (thread,) = (one for one in threading.enumerate() if one.name == name)
    lines = Path(f"/proc/self/task/{thread.native_id}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


def test_changes_of_a_burst_share_a_notification(postgresql_url: str) -> None:
    announced: set[int] = set()
    with Database.open(postgresql_url) as database, Database.open(postgresql_url) as other:
        database.listen(lambda _: None)
        other.listen(announced.update)
        announce_change(database, CHANGES[0])
        wait_until(lambda: announced == {CHANGES[0]}, "the first notification, which the thread connects for")
        time.sleep(0.1)  # until it waits again
        before = waits_of("keyrack-notifier")
        for server_id in CHANGES[1:]:
            announce_change(database, server_id)
            time.sleep(0.01)
        wait_until(lambda: announced == {*CHANGES}, "all changes")
        assert waits_of("keyrack-notifier") - before < 2 * len(CHANGES), "two or three for a notification"


def test_the_first_change_after_a_pause_and_the_last_ones_are_notified_at_once(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listen, "NOTIFY_PAUSE_SECONDS", 600)
    announced: set[int] = set()
    with Database.open(postgresql_url) as other:
        other.listen(announced.update)
        with Database.open(postgresql_url) as database:
            announce_change(database, 1)
            wait_until(lambda: announced == {1}, "the first notification")
            announce_change(database, 2)
        wait_until(lambda: announced == {1, 2}, "the last one, as the database was closed")


def test_no_change_is_lost_that_comes_right_after_another(postgresql_url: str) -> None:
    announced: set[int] = set()
    with Database.open(postgresql_url) as database, Database.open(postgresql_url) as other:
        other.listen(announced.update)
        for server_id in CHANGES:
            announce_change(database, server_id)
        wait_until(lambda: announced == {*CHANGES}, "all changes")
        for server_id in range(101, 121):  # each by a notification of its own, the last ones of a pair too soon
            announce_change(database, server_id)
            announce_change(database, 1000 + server_id)
            wait_until(lambda: {server_id, 1000 + server_id} <= announced, "both")  # noqa: B023


def test_the_notifier_connects_again(postgresql_url: str) -> None:
    announced: set[int] = set()
    with (
        Database.open(postgresql_url) as database,
        Database.open(postgresql_url) as other,
        psycopg.connect(postgresql_url, autocommit=True) as raw,
    ):
        other.listen(announced.update)
        announce_change(database, CHANGES[0])
        wait_until(lambda: announced == {CHANGES[0]}, "the first notification")
        ended = raw.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query LIKE 'NOTIFY%'"
        ).fetchall()
        assert ended == [(True,)]
        numbers = iter(range(2, 1000))

        def again() -> bool:
            announce_change(database, next(numbers))  # one whose notification failed is noticed with the next
            time.sleep(2 * listen.NOTIFY_PAUSE_SECONDS)
            return len(announced) > 1

        wait_until(again, "a notification by another connection")


def test_a_change_counts_and_later_ones_are_notified_where_a_thread_could_not_be_started(postgresql_url: str) -> None:
    announced: set[int] = set()
    with Database.open(postgresql_url) as other:
        other.listen(announced.update)
        with Database.open(postgresql_url) as database, no_threads():
            announce_change(database, 1)
        with Database.open(postgresql_url) as database:
            with no_threads():
                announce_change(database, 2)
            announce_change(database, 3)
            wait_until(lambda: announced == {1, 2, 3}, "what was changed without a thread is noticed with the next")
