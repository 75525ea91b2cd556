"""Statements sent to PostgreSQL ahead of their answers: what fails is raised, and nothing is done by halves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, Select, delete, insert, select, text
from sqlalchemy.exc import IntegrityError

from keyrack.store.database import Database
from keyrack.store.engine import pipeline
from keyrack.store.engine.connect import DatabaseAltered
from keyrack.store.engine.execute import savepoint
from keyrack.store.engine.prepared import Statement, placeholder, prepared
from keyrack.store.tables import instance_facts

_put = Statement(
    lambda: insert(instance_facts).values(
        name=placeholder(instance_facts.c.name), value=placeholder(instance_facts.c.value)
    )
)

_removing = Statement(
    lambda: (
        delete(instance_facts)
        .where(instance_facts.c.name == placeholder(instance_facts.c.name))
        .returning(instance_facts.c.name)
    )
)


@prepared
def _values(name: str) -> Select[Any]:
    return select(instance_facts.c.value).where(instance_facts.c.name == name)


def put(conn: Connection, name: str) -> None:
    _put.enqueue(conn, {"name": name, "value": "100 % of a'b"})


def found(conn: Connection, name: str) -> list[str]:
    return _values.values(conn, name)


@pytest.fixture
def database(postgresql_url: str) -> Iterator[Database]:
    with Database.open(postgresql_url) as database:
        yield database


def test_a_queued_write_is_there_for_the_next_question_and_after_the_commit(database: Database) -> None:
    def command(conn: Connection) -> list[str]:
        put(conn, "one")
        return found(conn, "one")

    assert database.write(command) == ["100 % of a'b"]
    assert database.read(lambda conn: found(conn, "one")) == ["100 % of a'b"]


@pytest.mark.parametrize("asked", [True, False])
def test_a_queued_write_that_fails_undoes_the_command(database: Database, asked: bool) -> None:
    def command(conn: Connection) -> None:
        put(conn, "new")
        put(conn, "twice")
        put(conn, "twice")
        if asked:
            found(conn, "new")
            raise AssertionError("the error shows at the question")

    with pytest.raises(IntegrityError):
        database.write(command)
    assert database.read(lambda conn: found(conn, "new") + found(conn, "twice")) == []
    database.write(lambda conn: put(conn, "new"))
    assert len(database.read(lambda conn: found(conn, "new"))) == 1


def test_a_failure_within_a_savepoint_undoes_the_savepoint_alone(database: Database) -> None:
    def command(conn: Connection) -> None:
        put(conn, "before")
        with pytest.raises(IntegrityError), savepoint(conn):
            put(conn, "within")
            put(conn, "before")
        put(conn, "after")

    database.write(command)
    kept = database.read(lambda conn: [len(found(conn, name)) for name in ("before", "within", "after")])
    assert kept == [1, 0, 1]


def test_sqlalchemys_own_statements_are_part_of_the_same_transaction(database: Database) -> None:
    def command(conn: Connection) -> None:
        put(conn, "one")
        assert conn.execute(text("SELECT count(*) FROM instance_facts WHERE name = 'one'")).scalar_one() == 1
        conn.execute(insert(instance_facts).values(name="two", value="x"))
        assert found(conn, "two") == ["x"]
        put(conn, "three")
        raise LookupError

    with pytest.raises(LookupError):
        database.write(command)
    assert database.read(lambda conn: [found(conn, name) for name in ("one", "two", "three")]) == [[], [], []]


def test_a_question_sees_one_instant_and_cannot_write(database: Database) -> None:
    written: list[str] = []

    def question(conn: Connection) -> list[list[str]]:
        first = found(conn, "one")
        if not written:  # a question of more than one statement may be asked again
            written.append("one")
            database.write(lambda other: put(other, "one"))
        by_sqlalchemy = conn.execute(text("SELECT name FROM instance_facts WHERE name = 'one'")).scalars().all()
        return [first, list(by_sqlalchemy), found(conn, "one")]

    assert database.read(lambda conn: len(found(conn, "one"))) == 0
    first, by_sqlalchemy, last = database.read(question)
    assert first == last
    assert [bool(first)] == [bool(by_sqlalchemy)]

    def writing(conn: Connection) -> None:
        put(conn, "two")
        found(conn, "two")

    with pytest.raises(Exception, match="read-only transaction"):
        database.read(writing)


def test_a_statement_that_was_never_right_spoils_no_other(database: Database) -> None:
    wrong = Statement(lambda: text("SELECT nothing FROM instance_facts WHERE name = :given_name"))
    for _ in range(2):
        with pytest.raises(DatabaseAltered, match="nothing"):
            database.read(lambda conn: wrong.rows(conn, {"name": "one"}))
    assert database.read(lambda conn: found(conn, "one")) == []


def test_more_statements_than_are_kept_or_sent_ahead(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "MAX_PREPARED", 2)
    monkeypatch.setattr(pipeline, "MAX_UNREAD", 5)
    some = [Statement(lambda n=n: text(f"SELECT {n} + CAST(:given_more AS int)")) for n in range(4)]  # type: ignore[misc]

    def command(conn: Connection) -> list[int]:
        for number in range(20):
            put(conn, f"fact {number}")
        return [statement.value(conn, {"more": 1}) for statement in some + some]

    assert database.write(command) == [1, 2, 3, 4] * 2
    assert len(database.read(lambda conn: found(conn, "fact 19"))) == 1


def test_prepared_statements_outlast_an_undone_transaction(database: Database) -> None:
    """psycopg prepares what it is asked often, and lets go of all that is prepared once a transaction is undone."""

    class Undo(Exception):
        pass

    def command(conn: Connection) -> None:
        put(conn, "undone")
        found(conn, "undone")
        for _ in range(10):
            conn.execute(select(instance_facts.c.value).where(instance_facts.c.name == "undone")).all()
        raise Undo

    for _ in range(3):
        with pytest.raises(Undo):
            database.write(command)
        assert database.read(lambda conn: found(conn, "undone")) == []


def test_a_question_of_one_statement_needs_no_transaction_and_one_of_more_sees_one_instant(database: Database) -> None:
    words: list[str] = []

    def one(conn: Connection) -> list[str]:
        return found(conn, "one")

    def several(conn: Connection) -> tuple[list[str], list[str]]:
        first = found(conn, "one")
        if not words:
            database.write(lambda other: put(other, "one"))
            words.append("written once")
        return first, found(conn, "one")

    held: list[Any] = []

    def noting(conn: Connection) -> list[str]:
        held.append(conn.connection.driver_connection)
        return one(conn)

    assert database.read(noting) == []
    assert held[0].info.transaction_status == TransactionStatus.IDLE
    first, second = database.read(several)
    assert first == second
    assert database.read(several) == (["100 % of a'b"], ["100 % of a'b"])


def test_a_single_statement_of_a_question_cannot_write_either(database: Database) -> None:
    with pytest.raises(Exception, match="read-only transaction"):
        database.read(lambda conn: _removing.rows(conn, {"name": "one"}))
