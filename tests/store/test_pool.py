"""Connections are lent first come, first served, and broken ones are never lent again."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from keyrack.store.database import DatabaseUnavailable
from keyrack.store.engine.connect import parse_url, sqlite_engine
from keyrack.store.engine.pool import Pool
from tests.waiting import wait_until


def pool_of(url: str, places: int, patience: float = 60) -> Pool:
    return Pool(sqlite_engine(parse_url(url)[1], writer=False), places, patience)


def test_a_thread_that_asks_again_does_not_overtake_those_that_wait(sqlite_url: str) -> None:
    pool = pool_of(sqlite_url, 1)
    order: list[str] = []

    def use(name: str) -> None:
        with pool.connection():
            order.append(name)

    with pool.connection():
        waiting = []
        for number in range(5):
            waiting.append(threading.Thread(target=use, args=(f"waiting {number}",)))
            waiting[-1].start()
            wait_until(lambda: len(pool._waiting) == len(waiting), "the thread to stand in line")
    use("came back")
    for thread in waiting:
        thread.join(60)
    assert order == [*(f"waiting {number}" for number in range(5)), "came back"]
    pool.close()


def test_waiting_for_a_connection_ends_and_no_connection_is_lost(sqlite_url: str) -> None:
    pool = pool_of(sqlite_url, 1, patience=0.05)
    with pool.connection(), pytest.raises(DatabaseUnavailable, match="too much to do"), pool.connection():
        pass
    with pool.connection() as conn:
        assert conn.exec_driver_sql("SELECT 1").scalar_one() == 1
    pool.close()


def test_a_wrong_question_keeps_the_connection_and_a_broken_one_is_replaced(sqlite_url: str) -> None:
    pool = pool_of(sqlite_url, 1)

    def lent() -> Connection:
        with pool.connection() as conn:
            return conn

    first = lent()
    with pytest.raises(DBAPIError), pool.connection() as conn, conn.begin():
        conn.exec_driver_sql("SELECT FROM")
    assert lent() is first
    with pytest.raises(KeyboardInterrupt), pool.connection():
        raise KeyboardInterrupt
    assert lent() is not first
    assert first.closed
    pool.close()


def test_a_connection_in_use_while_the_pool_closes_is_closed_when_it_is_returned(sqlite_url: str) -> None:
    pool = pool_of(sqlite_url, 2)
    with pool.connection() as conn:
        pool.close()
        assert conn.exec_driver_sql("SELECT 1").scalar_one() == 1
        conn.rollback()
    assert conn.closed
