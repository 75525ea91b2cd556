"""What several calls on the event loop ask PostgreSQL at the same moment is sent together, and fails apart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Float, Integer, LargeBinary, Select, cast, func, select, text, type_coerce
from sqlalchemy.exc import DBAPIError

from keyrack.store.database import Database, DatabaseUnavailable
from keyrack.store.engine import fibers
from keyrack.store.engine.pipeline import _Pipeline
from keyrack.store.engine.prepared import prepared

Question = Callable[[Connection], Any]


@prepared
def _root(number: float) -> Select[Any]:
    return select(func.sqrt(cast(number, Float)))


@prepared
def _backend(number: int) -> Select[Any]:
    return select(func.pg_backend_pid(), cast(number, Integer))


@prepared
def _random(secret: bytes) -> Any:
    return select(func.random(), cast(type_coerce(secret, LargeBinary), LargeBinary))


def root_of(number: float) -> Question:
    return lambda connection: _root.value(connection, number)


@pytest.fixture
def database(postgresql_url: str) -> Iterator[Database]:
    with Database.open(postgresql_url) as database:
        yield database


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What was sent, by its connection."""
    seen: list[int] = []
    end = _Pipeline._end

    def noted(pipeline: _Pipeline) -> None:
        seen.append(id(pipeline))
        end(pipeline)

    monkeypatch.setattr(_Pipeline, "_end", noted)
    return seen


def concurrently(database: Database, *questions: Question) -> list[Any]:
    """What becomes of questions that fibers of one event loop ask in one round."""

    async def asked() -> list[Any]:
        loop = asyncio.get_running_loop()
        begun = [fibers.begin(lambda one=one: database.read(one), loop)[1] for one in questions]  # type: ignore[misc]
        return await asyncio.gather(*begun, return_exceptions=True)

    return asyncio.run(asked())


def test_questions_asked_at_the_same_moment_are_sent_together(database: Database, sent: list[int]) -> None:
    assert concurrently(database, *(root_of(number**2) for number in range(20))) == list(range(20))
    assert len(sent) == 1


def test_the_same_question_asked_by_several_is_sent_once(database: Database) -> None:
    def same(connection: Connection) -> Any:
        return _backend.rows(connection, 4)

    first, *others = concurrently(database, *[same] * 5)
    assert first
    assert others == [first] * 4


def test_the_same_bytes_are_the_same_question(database: Database) -> None:
    """Such as what a token stands for, by which many calls come in at the same moment."""
    first, *others, another = concurrently(
        database,
        *[lambda connection: _random.rows(connection, bytes([0, 255, 92]))] * 4,
        lambda connection: _random.rows(connection, b"another"),
    )
    assert others == [first] * 3
    assert another != first
    assert [bytes(rows[0]["anon_1"]) for rows in (first, another)] == [bytes([0, 255, 92]), b"another"]


def test_a_question_that_fails_fails_only_for_its_caller(database: Database) -> None:
    good, wrong, last = concurrently(database, root_of(4), root_of(-1), root_of(9))
    assert (good, last) == (2, 3)
    assert isinstance(wrong, DBAPIError)
    assert concurrently(database, root_of(16)) == [4]
    (alone,) = concurrently(database, root_of(-1))
    assert isinstance(alone, DBAPIError)


def test_a_question_of_several_statements_sees_one_instant(database: Database) -> None:
    def twice(connection: Connection) -> Any:
        first = connection.execute(text("SELECT now()")).scalar_one()
        return first == connection.execute(text("SELECT now()")).scalar_one(), _root.value(connection, 4)

    def prepared_twice(connection: Connection) -> Any:
        return _root.value(connection, 4), _root.value(connection, 9)

    assert concurrently(database, twice, prepared_twice, root_of(1)) == [(True, 2), (2, 3), 1]


def test_a_connection_that_broke_is_replaced(database: Database) -> None:
    def backend(connection: Connection) -> Any:
        return _backend.value(connection, 1)

    (number,) = concurrently(database, backend)
    # Unlike a question, a command goes by a connection of its own.
    ended = text("SELECT pg_terminate_backend(:number)").bindparams(number=number)
    database.write(lambda connection: connection.execute(ended).scalar_one())
    found = concurrently(database, root_of(4), root_of(9), backend)
    assert found[:2] == [2, 3]
    assert found[2] != number


def test_each_caller_is_told_that_the_database_is_away(postgresql_url: str) -> None:
    elsewhere = postgresql_url.rpartition("/")[0] + "/there_is_none"
    with Database.open(elsewhere) as database:
        found = concurrently(database, root_of(4), root_of(9))
    assert [type(one) for one in found if isinstance(one, DatabaseUnavailable)] == [type(found[0])] * 2
