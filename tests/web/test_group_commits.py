"""Changes that are committed together are made or refused each by itself, and answered once they are on the disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from keyrack import app
from keyrack.core.audit import events
from keyrack.core.keys import credentials
from keyrack.errors import Refusal
from keyrack.model import EventFilter
from keyrack.store.database import Database, DatabaseUnavailable, WouldBlock
from keyrack.store.engine import nonblocking
from keyrack.web import group_commits
from keyrack.web.group_commits import GroupCommits
from tests.core.conftest import Team, make_team
from tests.core.keys_for_tests import fresh_line
from tests.services import Service, settings_for
from tests.web.test_nonblocking import LONG, askers
from tests.web.test_nonblocking import team as service
from tests.web.test_runcloud import add as add_credential

__all__ = ["service"]


@pytest.fixture
def acme(unused_data: Path) -> Iterator[Team]:
    """A workspace on SQLite."""
    instance = app.open_instance(settings_for(unused_data, ""))
    yield make_team(instance)
    instance.database.close()


def adding(team: Team, label: str, after: Callable[[], Any] = lambda: None) -> Callable[[], Any]:
    """A call that adds a credential, and then does something more."""
    line = fresh_line()

    def add() -> Any:
        of = (team.instance, team.owner, team.server.id)
        added = credentials.add(*of, label=label, username="deploy", public_key=line)
        after()
        return added

    return add


def in_one_transaction(database: Database, *calls: Callable[[], Any]) -> list[Any]:
    """What each call answers or raises, all of which wait when the transaction is lent."""

    async def run() -> list[Any]:
        made = GroupCommits(database)
        return await asyncio.gather(*(made.run(one) for one in calls), return_exceptions=True)

    try:
        with database.nonblocking():
            pass
    except WouldBlock:
        database.read(lambda connection: None)  # which opens what is asked at once
    return asyncio.run(run())


def commits(team: Team) -> int:
    return int(
        team.instance.database.read(lambda connection: connection.execute(text("PRAGMA user_version")).scalar_one())
    )


def labels(team: Team) -> list[str]:
    return [one.label for one in credentials.find(team.instance, team.owner, team.server.id).items]


def summaries(team: Team) -> list[str]:
    return [
        event.summary.split(" (")[0]
        for event in events.find(team.instance, team.owner, EventFilter(search="SSH key")).items
    ]


def revision(team: Team) -> int:
    statement = text("SELECT revision FROM servers")
    return int(team.instance.database.read(lambda connection: connection.execute(statement).scalar_one()))


def test_a_command_that_fails_leaves_the_others_whole(acme: Team) -> None:
    before, revised = commits(acme), revision(acme)
    first, refused, last = in_one_transaction(
        acme.instance.database, adding(acme, "first"), adding(acme, "first"), adding(acme, "last")
    )
    assert (first.label, last.label) == ("first", "last")
    assert isinstance(refused, Refusal)
    assert refused.code == "label-taken"
    assert commits(acme) == before + 1
    assert labels(acme) == ["first", "last"]
    assert revision(acme) == revised + 2
    assert sorted(summaries(acme)) == [
        "Added SSH key first",
        "Added SSH key last",
        "Refused: tried to add an SSH key",
    ]


def test_a_transaction_goes_on_while_calls_wait_and_others_are_answered_in_between(
    acme: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commits, "SLICE_SECONDS", 0.0)
    monkeypatch.setattr(group_commits, "MIN_CALLS", 1)
    monkeypatch.setattr(group_commits, "TRANSACTION_SECONDS", 60.0)
    seen: list[str] = []
    before = commits(acme)

    def note() -> None:
        seen.append("added")
        asyncio.get_running_loop().call_soon(seen.append, "looked")

    added = in_one_transaction(acme.instance.database, *(adding(acme, f"key-{number}", note) for number in range(3)))
    assert [one.label for one in added] == ["key-0", "key-1", "key-2"]
    assert commits(acme) == before + 1
    assert seen[:5] == ["added", "looked", "added", "looked", "added"]


def test_a_call_that_takes_too_long_is_undone_and_may_be_made_by_a_thread(acme: Team) -> None:
    database = acme.instance.database

    def count() -> None:
        database.read(lambda connection: connection.execute(LONG).scalar())

    slow = adding(acme, "slow", count)
    first, late, last = in_one_transaction(database, adding(acme, "first"), slow, adding(acme, "last"))
    assert isinstance(late, WouldBlock)
    assert (first.label, last.label) == ("first", "last")
    assert labels(acme) == ["first", "last"]
    slow()
    assert labels(acme) == ["first", "last", "slow"]


def test_a_call_sees_what_it_wrote_itself(acme: Team) -> None:
    seen: list[list[str]] = []
    in_one_transaction(acme.instance.database, adding(acme, "one", lambda: seen.append(labels(acme))))
    assert seen == [["one"]]


def test_a_command_that_would_write_many_rows_is_not_made_on_the_event_loop(
    acme: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nonblocking, "MAX_ROWS", 0)
    (refused,) = in_one_transaction(acme.instance.database, adding(acme, "one"))
    assert isinstance(refused, WouldBlock)
    adding(acme, "one")()
    assert labels(acme) == ["one"]


def test_a_transaction_that_is_lost_leaves_nothing_and_is_tried_again(acme: Team) -> None:
    database = acme.instance.database

    def end(connection: Connection) -> None:
        connection.connection.driver_connection.execute("ROLLBACK")  # type: ignore[union-attr]

    add, other = adding(acme, "one"), adding(acme, "two")
    assert all(
        isinstance(one, WouldBlock) for one in in_one_transaction(database, add, lambda: database.write(end), other)
    )
    assert labels(acme) == []
    assert [one.label for one in in_one_transaction(database, add, other)] == ["one", "two"]


def test_a_change_that_could_not_be_committed_is_not_answered_as_done(acme: Team) -> None:
    database = acme.instance.database

    def fill(connection: Connection) -> None:
        # What a transaction leaves open until its end is found by its commit alone.
        connection.execute(text("PRAGMA defer_foreign_keys = ON"))
        connection.execute(text("UPDATE credentials SET server_id = 999"))

    results = in_one_transaction(database, adding(acme, "one"), lambda: database.write(fill))
    assert [type(one) for one in results] == [DatabaseUnavailable] * 2
    assert labels(acme) == []
    adding(acme, "one")()
    assert labels(acme) == ["one"]


def test_a_service_hands_a_short_change_to_no_thread(service: Service) -> None:
    with askers() as seen:
        assert add_credential(service, label="another", publicKey=fresh_line()).status_code == 200
        assert add_credential(service, label="another", publicKey=fresh_line()).status_code == 422
    assert not [name for name in seen if name.startswith("keyrack-call")]
