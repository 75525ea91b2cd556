"""PostgreSQL looks at tables that grew soon after they did, also where its own upkeep is turned off."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import Connection, insert

from keyrack.store.database import Database
from keyrack.store.engine import table_statistics
from keyrack.store.engine.prepared import Statement, placeholder
from keyrack.store.engine.table_statistics import TableStatistics
from keyrack.store.tables import instance_facts
from tests.store.no_threads import no_threads
from tests.waiting import wait_until

_put = Statement(
    lambda: insert(instance_facts).values(
        name=placeholder(instance_facts.c.name), value=placeholder(instance_facts.c.value)
    )
)


@pytest.fixture
def database(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    monkeypatch.setattr(table_statistics, "FIRST_CHECK", 8)
    with Database.open(postgresql_url) as database:
        yield database


def grow(database: Database, commands: int, rows: int) -> None:
    for number in range(commands):

        def command(conn: Connection, number: int = number) -> None:
            _put.run_many(conn, [{"name": f"{number}-{row}", "value": ""} for row in range(rows)])
            conn.exec_driver_sql("SELECT pg_stat_force_next_flush()")  # or what was written last counts in ten seconds

        database.write(command)


def known_rows(database: Database) -> int:
    """How many rows the planner takes the table to have; -1 before anybody looked at it."""

    def ask(conn: Connection) -> int:
        found = conn.exec_driver_sql("SELECT reltuples FROM pg_class WHERE oid = 'instance_facts'::regclass")
        return int(found.scalar_one())

    return database.read(ask)


def test_a_table_that_grew_is_analysed(database: Database) -> None:
    grow(database, commands=8, rows=20)
    wait_until(lambda: known_rows(database) >= 160, "the planner knows of the rows")


def test_a_table_that_begins_to_grow_late_is_analysed(
    database: Database, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changes of other tables, however many there were, do not put its first analysis off."""
    monkeypatch.setattr(table_statistics, "PAUSES", (0,))
    statistics = TableStatistics(lambda: psycopg.connect(postgresql_url, autocommit=True))
    statistics.changed(100_000)
    wait_until(lambda: not statistics._is_running(), "the analysis of what others changed is over")
    grow(database, commands=4, rows=40)
    assert known_rows(database) == -1
    statistics.changed(table_statistics.MAX_BETWEEN_CHECKS)
    wait_until(lambda: known_rows(database) >= 160, "the planner knows of the rows")
    statistics.close()


def test_a_few_changes_start_no_analysis(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_statistics, "PAUSES", (0,))
    grow(database, commands=7, rows=20)
    assert not [thread for thread in threading.enumerate() if thread.name == "keyrack-statistics"]
    assert known_rows(database) == -1


def test_a_database_that_is_closed_is_not_waited_for(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_statistics, "PAUSES", (3600,))
    grow(database, commands=8, rows=1)
    database.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "keyrack-statistics"]


def test_changes_are_counted_where_a_thread_could_not_be_started(
    database: Database, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_statistics, "PAUSES", (0,))
    statistics = TableStatistics(lambda: psycopg.connect(postgresql_url, autocommit=True))
    with no_threads():
        statistics.changed(100)
        statistics.close()
    statistics = TableStatistics(lambda: psycopg.connect(postgresql_url, autocommit=True))
    with no_threads():
        statistics.changed(100)
    grow(database, commands=4, rows=40)
    statistics.changed(100)
    wait_until(lambda: known_rows(database) >= 160, "the planner knows of the rows")
    statistics.close()
