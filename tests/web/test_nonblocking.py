"""Short reads are answered by the event loop itself, and what would keep it is not."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text, update

from keyrack import app
from keyrack.core.keys import credentials
from keyrack.core.people.actors import system_actor
from keyrack.store import tables, unchanged
from keyrack.store.database import Database, TooSlow, WouldBlock
from keyrack.store.engine.nonblocking import unchanged_answers
from keyrack.store.keys import credential_lists
from keyrack.store.keys import credentials as credential_rows
from keyrack.store.people import tokens
from tests.core.keys_for_tests import fresh_line
from tests.services import Service, running, settings_for
from tests.statements import each_prepared
from tests.waiting import wait_until
from tests.web.test_native import call
from tests.web.test_runcloud import add as add_credential

KEYS = "/api/v3/servers/1/ssh/credentials"
LONG = text("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000) SELECT COUNT(*) FROM n")


@contextmanager
def nonblocking(database: Database) -> Iterator[None]:
    """As the database has it, once the service's event loop has let go of what it read last."""

    def entered() -> bool:
        with suppress(WouldBlock):
            stack.enter_context(database.nonblocking())
            return True
        return False

    with ExitStack() as stack:
        wait_until(entered, "that the event loop let go of what it read")
        yield


@contextmanager
def askers() -> Iterator[set[str]]:
    """The names of the threads that ask the database meanwhile."""
    seen: set[str] = set()

    def note(_statement: str, _values: Any) -> None:
        seen.add(threading.current_thread().name)

    with each_prepared(note):
        yield seen


@pytest.fixture
def team(team_folder: Path, tmp_path: Path) -> Iterator[Service]:
    """A service on SQLite with one key, whose owner it knows."""
    shutil.copytree(team_folder, tmp_path / "data")
    with running(settings_for(tmp_path / "data", "")) as service:
        assert add_credential(service).status_code == 200
        for _ in range(2):
            assert service.call("GET", f"{KEYS}/1", token="token-of-olga").status_code == 200
        yield service


def other_than_before(team: Service) -> None:
    """Have something be written, whatever it is: what was answered before is asked again."""
    team.instance.database.write(
        lambda connection: tokens.change_token(connection, 2, {"last_used_at": team.instance.now()})
    )


def test_a_short_read_is_handed_to_no_thread(team: Service) -> None:
    for path in (KEYS, f"{KEYS}/1", "/v4/user/keys"):
        headers = {"X-Auth-Token": "token-of-olga"}
        for _ in range(20):  # the service's own work beside requests, every second, asks as well
            team.call("GET", path, token="token-of-olga", headers=headers)
            other_than_before(team)
            with askers() as seen:
                assert team.call("GET", path, token="token-of-olga", headers=headers).status_code == 200
            if len(seen) == 1:
                break
        assert len(seen) == 1
        assert not [name for name in seen if name.startswith("keyrack-call")], path


def test_a_remembered_answer_is_asked_again_once_anything_was_written(team: Service) -> None:
    asked: list[str] = []

    def note(statement: str, _values: Any) -> None:
        asked.extend(table for table in ("FROM tokens", "FROM credentials") if table in statement)

    def shown() -> tuple[int, int]:
        one, page = (team.call("GET", path, token="token-of-olga") for path in (f"{KEYS}/1", KEYS))
        return one.status_code, len(page.json()["data"])

    assert shown() == (200, 1)
    other = app.open_instance(team.instance.settings)
    with closing(other.database), each_prepared(note):
        for _ in range(20):  # the service itself may write meanwhile
            asked.clear()
            assert shown() == (200, 1)
            if not asked:
                break
        assert not asked
        credentials.delete(other, system_actor(1), 1, 1)
        assert shown() == (404, 0)
        assert asked


def test_calls_of_one_round_see_one_instant_and_none_sees_a_later_one(team: Service) -> None:
    """Sixteen connections at once, and a key that comes and goes beside them: who asks after a change sees it."""
    other = app.open_instance(team.instance.settings)
    answered = 0
    stop = threading.Event()

    def ask() -> None:
        nonlocal answered
        while not stop.is_set():
            assert team.call("GET", f"{KEYS}/1", token="token-of-olga").status_code == 200
            answered += 1

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    try:
        for number in range(20):
            line = fresh_line()
            made = credentials.add(other, system_actor(1), 1, label=f"at-{number}", username="deploy", public_key=line)
            assert team.call("GET", f"{KEYS}/{made.id}", token="token-of-olga").status_code == 200
            credentials.delete(other, system_actor(1), 1, made.id)
            assert team.call("GET", f"{KEYS}/{made.id}", token="token-of-olga").status_code == 404
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        other.database.close()
    assert answered


def test_a_read_transaction_ends_with_the_round_of_the_event_loop(team: Service) -> None:
    """Else the file beside the database would grow for good, as none of it could be written back."""
    assert add_credential(team, label="another").status_code == 200
    assert team.call("GET", KEYS, token="token-of-olga").status_code == 200
    with closing(sqlite3.connect(team.instance.settings.data / "keyrack.db", isolation_level=None)) as file:
        wait_until(
            lambda: file.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0, "that nobody reads any more"
        )


def test_a_remembered_answer_ends_with_the_key_though_nothing_was_written(team: Service) -> None:
    assert add_credential(team, label="short", temporary=True).status_code == 200
    database, at = team.instance.database, team.instance.now()

    def seen(at: datetime) -> tuple[bool, int]:
        with nonblocking(database):
            page = database.read(lambda c: credential_lists.find_credentials(c, 1, 1, at=at, offset=0, limit=15))
            one = database.read(lambda c: credential_rows.own_credential(c, 1, 1, 2, at))
        assert page is not None
        assert page.total == len(page.items)
        return one is not None, page.total

    end = at + timedelta(hours=13)
    assert [seen(when) for when in (at, at, end, end, at)] == [(True, 2), (True, 2), (False, 1), (False, 1), (True, 2)]


def test_the_number_of_remembered_answers_is_bounded(team: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unchanged, "MAX", 5)
    database, at = team.instance.database, team.instance.now()

    def ask(limit: int, connection: Connection) -> int:
        credential_lists.find_credentials(connection, 1, 1, at=at, offset=0, limit=limit)
        kept = unchanged_answers(connection)
        assert kept is not None
        return kept.records

    with nonblocking(database):
        records = [database.read(partial(ask, limit)) for limit in range(1, 9)]
    assert 2 <= max(records) <= 5


def test_the_first_question_is_answered_at_once_too(tmp_path: Path) -> None:
    with running(settings_for(tmp_path / "data", "")) as service, service.instance.database.nonblocking():
        assert service.instance.database.read(lambda connection: connection.execute(text("SELECT 1")).scalar()) == 1


def test_a_call_that_is_not_known_to_be_short_is_answered_by_a_thread(team: Service) -> None:
    with askers() as seen:
        assert team.call("GET", "/api/v3/servers/1/ssh/sessions", token="token-of-olga").status_code == 200
    assert [name for name in seen if name.startswith("keyrack-call")]


def test_a_refusal_leaves_its_event_though_a_read_was_tried_at_once(team: Service) -> None:
    """It has to be written, which the event loop does not do; the limit of requests counts the call once."""
    path = f"{KEYS}/1"
    assert team.call("GET", "/api/v3/ping", token="token-of-mallory").status_code == 200
    for _ in range(3):
        refused = team.call("GET", path, token="token-of-mallory")
        assert refused.status_code == 403
    left = [int(team.call("GET", path, token="token-of-mallory").headers["X-RateLimit-Remaining"]) for _ in range(2)]
    assert left[0] - left[1] == 1
    events = call(team, "GET", "/events?search=see%20an%20SSH%20key")["items"]
    assert [event["summary"] for event in events] == ["Refused: tried to see an SSH key (not-allowed)"]


def test_a_token_revoked_elsewhere_opens_nothing_more(team: Service) -> None:
    other = app.open_instance(team.instance.settings)
    try:
        other.database.write(lambda connection: tokens.revoke_token(connection, 1, other.now()))
    finally:
        other.database.close()
    assert team.call("GET", f"{KEYS}/1", token="token-of-olga").status_code == 401


def test_a_row_that_others_altered_counts_for_nothing_and_raises_its_alarm(team: Service) -> None:
    for _ in range(2):
        team.call("GET", f"{KEYS}/1", token="token-of-audrey")
    statement = update(tables.tokens).where(tables.tokens.c.user_id == 5).values(scopes=["*", "iam:*"])
    team.instance.database.write(lambda connection: connection.execute(statement))
    assert team.call("GET", f"{KEYS}/1", token="token-of-audrey").status_code == 401
    assert [event for event in call(team, "GET", "/events")["items"] if "The token 5" in event["summary"]]


def test_a_command_on_the_event_loop_neither_waits_nor_writes(team: Service) -> None:
    database = team.instance.database

    def alter(connection: Connection) -> None:
        connection.execute(text("DELETE FROM credentials"))

    with nonblocking(database):
        with pytest.raises(TooSlow):
            database.read(lambda connection: connection.execute(LONG).scalar())
        with pytest.raises(WouldBlock):
            database.write(alter)
        with pytest.raises(WouldBlock):
            database.read(alter)
    assert database.read(lambda connection: connection.execute(LONG).scalar()) == 200_000
    assert team.call("GET", f"{KEYS}/1", token="token-of-olga").status_code == 200


def test_all_questions_of_one_round_see_one_instant(team: Service) -> None:
    database = team.instance.database

    def count(connection: Connection) -> int:
        return int(connection.execute(text("SELECT COUNT(*) FROM credentials")).scalar_one())

    with nonblocking(database):
        first = database.read(count)
        writing = threading.Thread(target=lambda: add_credential(team, label="meanwhile"))
        writing.start()
        writing.join()
        assert database.read(count) == first
    assert database.read(count) == first + 1


def test_postgresql_answers_nothing_without_waiting(tmp_path: Path) -> None:
    database = Database.open("postgresql://nobody@127.0.0.1/nothing")
    try:
        with pytest.raises(WouldBlock), database.nonblocking():
            pass
    finally:
        database.close()
