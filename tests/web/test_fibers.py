"""Short calls on PostgreSQL are answered by the event loop, which nobody keeps while the database is waited for."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest
import uvloop
from greenlet import getcurrent
from sqlalchemy import text

from keyrack.store.engine import fibers, group_commit
from keyrack.web.callers import Caller
from keyrack.web.fair_queueing import FairScheduler
from tests.core.keys_for_tests import fresh_line
from tests.services import TEAM, Service, running, settings_for
from tests.statements import each_prepared
from tests.waiting import wait_until
from tests.web.test_nonblocking import KEYS, askers
from tests.web.test_runcloud import add as add_credential

TOKEN = "token-of-olga"
WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"  # noqa: E501


@pytest.fixture(scope="module")
def url(cluster: Any, migrated_template: str) -> Iterator[str]:
    made = cluster.create_database(migrated_template)
    yield made
    cluster.drop_database(made)


@pytest.fixture(scope="module")
def team(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service on PostgreSQL whose owner is known to it."""
    folder: Path = tmp_path_factory.mktemp("fibers")
    with running(settings_for(folder / "data", url, max_user_keys=1000)) as service:
        service.apply(TEAM)
        assert added(service, "first").status_code == 200
        for _ in range(2):
            assert got(service).status_code == 200
        yield service


def added(team: Service, label: str) -> Any:
    return add_credential(team, label=label, publicKey=fresh_line())


def got(team: Service) -> Any:
    return team.call("GET", f"{KEYS}/1", token=TOKEN)


def asked(team: Service, question: str) -> Any:
    return team.instance.database.read(lambda connection: connection.execute(text(question)).scalar_one())


@contextmanager
def turns_taken() -> Iterator[list[Any]]:
    """The transactions that take the turn of the workspace meanwhile."""
    seen: list[Any] = []

    def note(statement: str, values: Any) -> None:
        if "pg_advisory_xact_lock" in statement and 1 in values.values():
            seen.append(values)

    with each_prepared(note):
        yield seen


def test_short_calls_are_handed_to_no_thread(team: Service) -> None:
    with askers() as seen:
        assert got(team).status_code == 200
        assert added(team, "by-the-event-loop").status_code == 200
        assert team.call("GET", KEYS, token=TOKEN).status_code == 200
    assert not [name for name in seen if name.startswith("keyrack-call")]


def test_a_call_that_waits_for_the_database_keeps_no_other_waiting(team: Service, url: str) -> None:
    with closing(psycopg.connect(url)) as other, ThreadPoolExecutor(2) as pool:
        other.execute("SELECT pg_advisory_xact_lock(%s, 1)", (0x6B6579,))
        slow = pool.submit(added, team, "slow")
        wait_until(lambda: asked(team, WAITING) == 1, "the add to wait for its turn")
        assert got(team).status_code == 200
        assert not slow.done()
        other.rollback()
        assert slow.result(60).status_code == 200


def test_changes_that_wait_for_one_turn_are_committed_together_and_refused_apart(
    team: Service, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "MAX_SECONDS", 60)
    before = asked(team, "SELECT revision FROM servers WHERE id = 1")
    labels = [f"of-many-{number}" for number in range(8)]
    with closing(psycopg.connect(url)) as other, ThreadPoolExecutor(12) as pool, turns_taken() as seen:
        other.execute("SELECT pg_advisory_xact_lock(%s, 1)", (0x6B6579,))
        first = pool.submit(added, team, "of-many-first")
        wait_until(lambda: asked(team, WAITING) == 1, "the first to wait for its turn")
        rest = [pool.submit(added, team, label) for label in [*labels, labels[0]]]
        wait_until(lambda: _in_line(team) == len(rest), "the rest to wait for the first")
        other.rollback()
        assert first.result(60).status_code == 200
        codes = sorted(one.result(60).status_code for one in rest)
    assert codes == [200] * 8 + [422]
    assert asked(team, "SELECT revision FROM servers WHERE id = 1") == before + 9
    assert len(seen) == 1
    question = "SELECT count(*) FROM events WHERE outcome = '{}' AND (summary LIKE '%of-many%' OR outcome = 'refused')"
    assert asked(team, question.format("done")) == 9
    assert asked(team, question.format("refused")) == 1
    assert not team.instance.database.seals.unreported


def _in_line(team: Service) -> int:
    queues: Any = team.instance.database._writer._queues  # type: ignore[union-attr]
    return sum(len(queue) for queue in queues.values())


def test_connections_that_broke_are_replaced(team: Service, url: str) -> None:
    ended = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'keyrack' AND pid != pg_backend_pid()"
    )
    with closing(psycopg.connect(url, autocommit=True)) as other:
        assert other.execute(ended).fetchone() != (0,)
    assert got(team).status_code == 200
    assert added(team, "after-the-break").status_code == 200
    assert added(team, "after-the-break").status_code == 422


def test_the_last_answer_is_read_from_a_connection_that_is_reset() -> None:
    """A server that is killed with a question unread resets the connection, its last answer still to be read."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    read: list[bytes] = []

    def until_it_ends(watch: fibers.DescriptorWatch) -> None:
        while not read or read[-1]:
            watch.until_readable(cast(fibers.Fiber, fibers.current()), 10)
            with suppress(ConnectionResetError):
                read.append(ours.recv(3))

    async def waited() -> None:
        loop = asyncio.get_running_loop()
        watch = fibers.DescriptorWatch(loop, ours.fileno(), lambda: None)
        _, ended = fibers.begin(lambda: until_it_ends(watch), loop)
        ours.send(b"a question that nobody reads")
        theirs.send(b"answer")
        theirs.close()
        try:
            await asyncio.wait_for(ended, 10)
        finally:
            watch.end()

    with ours:
        uvloop.run(waited())
    assert read == [b"ans", b"wer", b""]


def test_many_at_once_get_their_own_answers(team: Service) -> None:
    def ask(number: int) -> bool:
        if number % 3 == 0:
            return bool(added(team, f"crowd-{number}").json()["label"] == f"crowd-{number}")
        if number % 3 == 1:
            return bool(got(team).json()["label"] == "first")
        return team.call("GET", f"{KEYS}/999999", token=TOKEN).status_code == 404

    with ThreadPoolExecutor(24) as pool:
        assert all(pool.map(ask, range(90)))
    assert asked(team, "SELECT count(*) FROM credentials WHERE label LIKE 'crowd-%'") == 30


HERE: ContextVar[int] = ContextVar("HERE", default=0)


def test_fibers_run_where_others_ran_and_see_nothing_of_them() -> None:
    places: list[int] = []

    def call(number: int) -> int:
        assert HERE.get() == number
        HERE.set(-number)
        places.append(id(getcurrent()))
        fibers.sleep(0.001)
        assert HERE.get() == -number
        if number % 3 == 0:
            raise ValueError(number)
        return number

    async def one(loop: asyncio.AbstractEventLoop, number: int) -> int:
        HERE.set(number)
        with suppress(ValueError):
            assert await fibers.begin(lambda: call(number), loop)[1] == number
        return HERE.get()

    async def many() -> None:
        for _ in range(4):
            asked = [one(asyncio.get_running_loop(), number) for number in range(1, 9)]
            assert await asyncio.gather(*asked) == list(range(1, 9))

    uvloop.run(many())
    assert len(places) == 32
    assert len(set(places)) == 8


def test_a_late_wake_up_for_an_ended_fiber_reaches_no_other() -> None:
    async def begun() -> None:
        loop = asyncio.get_running_loop()
        places: list[int] = []
        first, ended = fibers.begin(lambda: places.append(id(getcurrent())), loop)
        await ended
        second, waits = fibers.begin(lambda: _wait_for_good(places), loop)
        assert places[0] == places[1]
        first.resume()
        await asyncio.sleep(0.01)
        assert not waits.done()
        second.resume()
        await waits

    uvloop.run(begun())


def _wait_for_good(places: list[int]) -> None:
    places.append(id(getcurrent()))
    cast(fibers.Fiber, fibers.current()).wait(lambda: None)


def test_a_caller_who_gives_up_keeps_the_place_until_the_fiber_ended() -> None:
    async def given_up() -> None:
        scheduler, caller = FairScheduler(), Caller("olga", known=True)
        waiting: list[fibers.Fiber] = []

        def call() -> None:
            waiting.append(cast(fibers.Fiber, fibers.current()))
            waiting[0].wait(lambda: None)

        asked = asyncio.create_task(scheduler.in_fiber(caller, call))
        await asyncio.sleep(0.01)
        asked.cancel()
        await asyncio.sleep(0.01)
        assert not asked.done()
        waiting[0].resume()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(asked, 10)

    uvloop.run(given_up())
