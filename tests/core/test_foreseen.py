"""Keys that are entered at the same moment: their questions are asked in one go, and none sees less for that."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Connection, select

from keyrack.core.hosts import servers as core_servers
from keyrack.core.hosts import system_users
from keyrack.core.keys import credentials, user_keys
from keyrack.errors import Refusal
from keyrack.model import Credential
from keyrack.store import tables
from keyrack.store.database import lock_workspace
from keyrack.store.engine import fibers, group_commit
from keyrack.store.engine.pipeline import _Pipeline
from keyrack.store.engine.postgresql_writer import PostgresqlWriter
from keyrack.store.hosts import lineage, servers
from keyrack.store.keys import revocations
from keyrack.store.sealing import event_seals, sealed
from keyrack.store.sealing.seals import Seen
from tests.core.conftest import Team
from tests.core.keys_for_tests import fresh_line
from tests.statements import prepared_statements


def adding(team: Team, label: str, line: str = "", server_id: int = 0) -> Callable[[], Credential]:
    key = line or fresh_line()
    server = server_id or team.server.id
    return lambda: credentials.add(team.instance, team.owner, server, label=label, username="deploy", public_key=key)


def concurrently(team: Team, *calls: Callable[[], Any]) -> list[Any]:
    """What comes of calls that fibers of one event loop make, which wait in this order before the first one goes on."""
    free, taken = threading.Event(), threading.Event()

    def hold(connection: Connection) -> None:
        lock_workspace(connection, team.owner.workspace_id)
        connection.exec_driver_sql("SELECT 1")
        taken.set()
        free.wait(30)

    async def made() -> list[Any]:
        loop = asyncio.get_running_loop()
        held = loop.run_in_executor(None, lambda: team.instance.database.write(hold))
        await loop.run_in_executor(None, taken.wait)
        begun = []
        for number, call in enumerate(calls):
            begun.append(fibers.begin(call, loop)[1])
            while [len(queue) for queue in waiting.values()] != [number]:
                await asyncio.sleep(0.01)
        free.set()
        await held
        return await asyncio.gather(*begun, return_exceptions=True)

    writer = team.instance.database._writer
    assert isinstance(writer, PostgresqlWriter)
    waiting = writer._queues
    return asyncio.run(made())


@pytest.fixture
def at_work(team: Team, monkeypatch: pytest.MonkeyPatch) -> Team:
    """A team with a key, whose database is waited for in fibers."""
    monkeypatch.setattr(group_commit, "MAX_SECONDS", 60)  # however busy the machine is
    if not team.instance.database.waits_in_fibers:
        pytest.skip("SQLite is not waited for")
    adding(team, "first")()
    return team


def events(team: Team) -> list[dict[str, Any]]:
    """All events, in their order."""
    asked = select(tables.events).order_by(tables.events.c.id)
    return team.instance.database.read(lambda connection: [dict(one._mapping) for one in connection.execute(asked)])


def is_whole(team: Team) -> bool:
    """Whether the server's row is as Keyrack wrote it, and its sum that of its rows."""

    def ask(connection: Connection) -> bool:
        row = connection.execute(select(tables.servers).where(tables.servers.c.id == team.server.id)).one()
        whole = servers.complete(connection, team.server.id)
        return whole and sealed.holds(connection, tables.servers, row)

    return team.instance.database.read(ask)


def revision(team: Team) -> int:
    asked = select(tables.servers.c.revision).where(tables.servers.c.id == team.server.id)
    return int(team.instance.database.read(lambda connection: connection.execute(asked).scalar_one()))


def test_the_questions_of_keys_entered_together_are_waited_for_once(
    at_work: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[object] = []
    read = _Pipeline.read

    def noted(pipeline: _Pipeline) -> None:
        if not pipeline._raw.read_only:
            waited.append(pipeline)
        read(pipeline)

    calls = [adding(at_work, f"laptop-{number}") for number in range(8)]
    monkeypatch.setattr(_Pipeline, "read", noted)
    found = concurrently(at_work, *calls)
    assert len(waited) <= 6, "not once for each"
    assert len({one.revision for one in found}) == 8
    assert is_whole(at_work)


def test_a_server_is_written_once_for_those_that_follow_each_other(at_work: Team) -> None:
    calls = [adding(at_work, f"laptop-{number}") for number in range(12)]
    with prepared_statements("UPDATE servers") as written:
        found = concurrently(at_work, *calls)
    assert len(written) <= 3, "the first one, and the others"
    assert sorted(one.revision for one in found) == list(range(found[0].revision, found[0].revision + 12))
    assert revision(at_work) == max(one.revision for one in found)
    assert is_whole(at_work)


def test_the_tree_is_written_once_for_keys_of_users_that_come_together(at_work: Team) -> None:
    """Also beside a command that reads it, of which one was refused, and one on a server in between."""

    def entering(title: str, line: str = "") -> Callable[[], Any]:
        key = line or fresh_line()
        return lambda: user_keys.add(at_work.instance, at_work.owner, title=title, public_key=key)

    line = fresh_line()
    calls = [entering("mine", line), *(entering(f"own-{number}") for number in range(8)), adding(at_work, "a")]
    with prepared_statements("INTO access_tree") as written:
        found = concurrently(at_work, *calls, entering("again", line), entering("last"))
    assert [type(one).__name__ for one in found] == [*["UserKey"] * 9, "Credential", "Refusal", "UserKey"]
    assert len(written) == 1

    def hold(connection: Connection) -> bool:
        keys = connection.execute(select(tables.user_keys)).mappings().all()
        return len(keys) == 10 and all(sealed.holds(connection, tables.user_keys, key) for key in keys)

    at_work.instance.database.seals.seen = Seen()
    assert at_work.instance.database.read(hold)
    assert is_whole(at_work)


def test_marks_that_leave_a_servers_row_between_two_writes_are_kept(at_work: Team) -> None:
    for _ in range(5):
        concurrently(at_work, *[adding(at_work, fresh_line()[-20:]) for _ in range(15)])
    assert is_whole(at_work)

    def marks(connection: Connection) -> tuple[int, str, str]:
        asked = "SELECT s.revision, s.lineage, o.marks FROM servers s JOIN older_marks o ON o.server_id = s.id"
        row = connection.exec_driver_sql(f"{asked} WHERE s.id = {at_work.server.id} AND o.revision = 64").one()
        return row[0], row[1], row[2]

    newest, held, kept = at_work.instance.database.read(marks)
    since = (newest - 64) * lineage.MARK_CHARACTERS
    assert held[since:] == kept[: len(held) - since]


def test_other_changes_of_the_server_in_between_see_it_as_it_is(at_work: Team) -> None:
    """Those that look at nothing ahead, those whose label is taken, and those of another server."""
    other = core_servers.create(at_work.instance, at_work.owner, name="web-2", address="192.0.2.11").id
    system_users.create(at_work.instance, at_work.owner, other, username="deploy")

    def revising() -> Any:
        return core_servers.retag(at_work.instance, at_work.owner, at_work.server.id, ("web", "fleet"))

    found = concurrently(
        at_work, adding(at_work, "a"), adding(at_work, "b"), adding(at_work, "x", server_id=other), revising,
        adding(at_work, "c"), adding(at_work, "a"), adding(at_work, "y", server_id=other), adding(at_work, "d"),
    )  # fmt: skip
    assert [type(one).__name__ for one in found].count("Refusal") == 1
    assert not [one for one in found if isinstance(one, BaseException) and not isinstance(one, Refusal)]
    assert revision(at_work) == found[7].revision
    assert is_whole(at_work)


def test_a_command_whose_questions_were_asked_ahead_is_made_however_long_the_others_took(
    at_work: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the same questions are asked in each transaction anew, the more the slower the machine is."""
    clock = [0.0]
    monkeypatch.setattr(group_commit, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def takes_long() -> None:
        def command(_connection: Connection) -> None:
            clock[0] += 2 * group_commit.MAX_SECONDS

        at_work.instance.database.write(command, workspace_lock=at_work.owner.workspace_id)

    found = concurrently(
        at_work, adding(at_work, "a"), takes_long, adding(at_work, "b"), adding(at_work, "c"), takes_long
    )
    assert not [one for one in found if isinstance(one, BaseException)]

    def transactions(connection: Connection) -> int:
        asked = "SELECT count(DISTINCT xmin::text) FROM credentials WHERE label IN ('a', 'b', 'c')"
        return int(connection.exec_driver_sql(asked).scalar_one())

    assert at_work.instance.database.read(transactions) == 1


def test_the_second_of_two_keys_with_one_label_is_refused(at_work: Team) -> None:
    found = concurrently(
        at_work, adding(at_work, "a"), adding(at_work, "b"), adding(at_work, "b"), adding(at_work, "c")
    )
    assert [type(one) for one in found] == [Credential, Credential, Refusal, Credential]
    assert found[2].code == "label-taken"
    assert is_whole(at_work)


def test_a_command_sees_what_another_one_changed_meanwhile(at_work: Team) -> None:
    """A key that is deleted is refused by its host from then on; entered again it must not be."""
    line = fresh_line()
    old = adding(at_work, "old", line)()

    def deleting() -> Any:
        return credentials.delete(at_work.instance, at_work.owner, at_work.server.id, old.id)

    found = concurrently(at_work, adding(at_work, "a"), deleting, adding(at_work, "again", line), adding(at_work, "b"))
    assert not [one for one in found if isinstance(one, BaseException)]
    refused = at_work.instance.database.read(lambda connection: revocations.keys_on(connection, at_work.server.id))
    assert old.public_key not in refused
    assert is_whole(at_work)


def test_commands_committed_together_leave_events_in_order_and_none_for_refused_ones(at_work: Team) -> None:
    before = events(at_work)
    found = concurrently(at_work, *[adding(at_work, label) for label in "abcdeafbg"])
    kept = [one for one in found if isinstance(one, Credential)]
    assert [one.label for one in kept] == list("abcdefg")
    assert [one.code for one in found if isinstance(one, Refusal)] == ["label-taken"] * 2
    revisions = [one.revision for one in kept]
    assert revisions == list(range(revisions[0], revisions[0] + 7))
    left = events(at_work)[len(before) :]
    done = [(one["target_id"], one["details"]["revisions"]) for one in left if one["outcome"] == "done"]
    assert done == [(one.id, {str(at_work.server.id): one.revision}) for one in kept]
    assert all(one["outcome"] == "refused" for one in left if one["target_id"] is None)
    sealed_well = [
        at_work.instance.database.read(lambda connection, one=one: event_seals.holds(connection, one, 0))  # type: ignore[misc]
        for one in left
    ]
    assert all(sealed_well)
    assert is_whole(at_work)
