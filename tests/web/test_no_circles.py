"""What a call needed is gone from memory with its answer, and does not wait for the garbage collector in a circle."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from starlette.requests import Request
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from keyrack.store.engine.shared_reads import LoneConnection
from keyrack.store.engine.sqlite_commands import LentTransaction
from keyrack.web.protocol import WholeAnswer
from tests.core.keys_for_tests import fresh_line
from tests.services import TEAM, Service, running, settings_for
from tests.web.test_runcloud import add as add_credential

KEYS = "/api/v3/servers/1/ssh/credentials"
OF_A_REQUEST = (Request, RequestResponseCycle, WholeAnswer)


@pytest.fixture
def team(database_url: str, tmp_path: Path) -> Iterator[Service]:
    """A service on either database whose owner is known to it."""
    with running(settings_for(tmp_path / "data", database_url)) as service:
        service.apply(TEAM)
        assert add_credential(service, label="first").status_code == 200
        for _ in range(2):
            assert service.call("GET", f"{KEYS}/1", token="token-of-olga").status_code == 200
        yield service


@contextmanager
def collected() -> Iterator[list[object]]:
    """What only the collector found meanwhile."""
    gc.collect()
    gc.disable()
    found: list[object] = []
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found += gc.garbage
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize("label", ["another", "first"], ids=["done", "refused"])
def test_a_change_leaves_no_reference_cycle(team: Service, label: str) -> None:
    with collected() as found:
        for number in range(5):
            name = f"{label}-{number}" if label == "another" else label
            assert add_credential(team, label=name, publicKey=fresh_line()).status_code in (200, 422)
    # A connection that is closed after a refusal is a circle of uvicorn's own, with its last request.
    kinds = (LentTransaction, LoneConnection, *(OF_A_REQUEST if label == "another" else (BaseException,)))
    assert not [one for one in found if isinstance(one, kinds)]


@pytest.mark.parametrize("number", [1, 999_999], ids=["done", "refused"])
def test_a_read_leaves_no_reference_cycle(team: Service, number: int) -> None:
    with collected() as found:
        for _ in range(5):
            assert team.call("GET", f"{KEYS}/{number}", token="token-of-olga").status_code in (200, 404)
    assert not [one for one in found if isinstance(one, (*OF_A_REQUEST, LoneConnection, BaseException))]


@pytest.mark.parametrize("path", ["/agent/v1/archive", "/login", "/openapi.json"])
def test_an_answer_sent_in_pieces_leaves_no_request_in_memory(team: Service, path: str) -> None:
    with collected() as found:
        for _ in range(5):
            team.call("GET", path)
    assert not [one for one in found if isinstance(one, (RequestResponseCycle, WholeAnswer))]


def test_a_question_of_two_statements_leaves_no_reference_cycle(team: Service) -> None:
    def two(conn: Connection) -> int:
        return int(conn.execute(text("SELECT 1")).scalar_one() + conn.execute(text("SELECT 2")).scalar_one())

    with collected() as found:
        assert team.instance.database.read(two) == 3
    assert not [one for one in found if isinstance(one, BaseException)]
