"""Commands on PostgreSQL that are committed together: each leaves all or nothing, whatever the others do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, Select, func, insert, select

from keyrack.store.database import Database, DatabaseUnavailable
from keyrack.store.engine import fibers, group_commit, prepared
from keyrack.store.engine.prepared import Statement, placeholder
from keyrack.store.tables import instance_facts
from tests.statements import prepared_statements

Command = Callable[[Connection], Any]

_put = Statement(
    lambda: insert(instance_facts).values(
        name=placeholder(instance_facts.c.name), value=placeholder(instance_facts.c.value)
    )
)


@prepared.prepared
def _value(name: str) -> Select[Any]:
    return select(instance_facts.c.value).where(instance_facts.c.name == name)


def putting(name: str, raised: Exception | None = None) -> Command:
    """Asks, so that others come meanwhile, enters a fact, and is refused or not."""

    def command(conn: Connection) -> str:
        _value.value(conn, name)
        _put.enqueue(conn, {"name": name, "value": "x"})
        if raised is not None:
            raise raised
        return name

    return command


def refused(conn: Connection) -> None:
    _value.value(conn, "anything")
    raise LookupError


@pytest.fixture
def database(postgresql_url: str) -> Iterator[Database]:
    with Database.open(postgresql_url) as database:
        yield database


@pytest.fixture
def turns() -> Iterator[list[str]]:
    """What took the lock, once for each transaction."""
    with prepared_statements("pg_advisory_xact_lock") as sent:
        yield sent


def made(database: Database, *commands: Command) -> list[Any]:
    """What comes of commands that fibers of one event loop want made under the same workspace lock."""

    async def asked() -> list[Any]:
        loop = asyncio.get_running_loop()
        begun = [
            fibers.begin(lambda one=one: database.write(one, workspace_lock=1), loop)[1]  # type: ignore[misc]
            for one in commands
        ]
        return await asyncio.gather(*begun, return_exceptions=True)

    return asyncio.run(asked())


def facts(database: Database) -> set[str]:
    return database.read(lambda conn: set(conn.execute(select(instance_facts.c.name)).scalars()))


def test_a_command_refused_before_it_writes_harms_no_other(database: Database, turns: list[str]) -> None:
    before = facts(database)
    found = made(database, putting("a"), refused, putting("b"))
    assert (found[0], type(found[1]), found[2]) == ("a", LookupError, "b")
    assert facts(database) - before == {"a", "b"}
    assert len(turns) == 1


def test_a_command_refused_after_it_wrote_leaves_nothing_and_the_others_everything(database: Database) -> None:
    before = facts(database)
    found = made(database, putting("a"), putting("c", LookupError()), putting("b"))
    assert (found[0], type(found[1]), found[2]) == ("a", LookupError, "b")
    assert facts(database) - before == {"a", "b"}


def test_a_command_that_the_database_refuses_leaves_nothing_and_the_others_everything(database: Database) -> None:
    before = facts(database)
    found = made(database, putting("a"), putting("a"), putting("b"))
    assert (found[0], type(found[1]).__name__, found[2]) == ("a", "IntegrityError", "b")
    assert facts(database) - before == {"a", "b"}


def test_no_command_is_taken_for_done_when_one_ends_the_program(database: Database) -> None:
    class Ends(BaseException):
        pass

    def ends(conn: Connection) -> None:
        _value.value(conn, "anything")
        raise Ends

    before = facts(database)
    found = made(database, putting("a"), putting("b"), ends, putting("c"))
    assert {type(one) for one in found} == {str, Ends}
    assert facts(database) - before == {one for one in found if isinstance(one, str)}


def test_a_connection_that_dies_among_shared_reads_counts_as_unavailable(database: Database) -> None:
    def dies(conn: Connection) -> None:
        conn.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")
        _value.value(conn, "anything")

    before = facts(database)
    found = made(database, putting("a"), dies, putting("b"))
    assert {type(one) for one in found} <= {str, DatabaseUnavailable}
    assert isinstance(found[1], DatabaseUnavailable)
    assert facts(database) - before == {one for one in found if isinstance(one, str)}


def test_a_refused_command_that_wrote_by_sqlalchemy_leaves_nothing(database: Database) -> None:
    def by_sqlalchemy(conn: Connection) -> None:
        conn.execute(insert(instance_facts).values(name="c", value="x"))
        raise LookupError

    before = facts(database)
    found = made(database, putting("a"), by_sqlalchemy, putting("b"))
    assert type(found[1]) is LookupError
    assert facts(database) - before == {"a", "b"}


@prepared.prepared
def _holding(number: int) -> Select[Any]:
    return select(func.pg_advisory_xact_lock(number))


def test_the_server_works_on_queued_statements_while_others_are_made(
    database: Database, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "MAX_SECONDS", 60)

    def sees_queued(_conn: Connection) -> bool:
        with psycopg.connect(postgresql_url, autocommit=True) as other:
            for _ in range(200):
                if other.execute("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711").fetchone():
                    return True
                time.sleep(0.05)
        return False

    def queued(conn: Connection) -> None:
        _holding.enqueue(conn, 4711)

    found = made(database, putting("a"), queued, *[lambda _conn: None] * group_commit.SENT_EACH, sees_queued)
    assert found[-1]
