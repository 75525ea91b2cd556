"""What the calls made most often ask of the database: few statements, and nothing that only was true before."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import update

from keyrack import app
from keyrack.core.keys import credentials, user_keys
from keyrack.core.people import tokens
from keyrack.errors import Refusal
from keyrack.store import tables
from keyrack.store.engine.pipeline import _Pipeline
from keyrack.store.hosts import servers
from keyrack.store.people import tokens as token_rows
from keyrack.store.people import users
from tests.core.conftest import Team
from tests.core.keys_for_tests import fresh_line
from tests.statements import all_statements

TOKEN = "a-token-that-nobody-else-has"


def new_credential(team: Team, label: str) -> Any:
    line = fresh_line()
    return credentials.add(team.instance, team.owner, team.server.id, label=label, username="deploy", public_key=line)


def authenticate(team: Team) -> Any:
    return tokens.authenticate(team.instance, TOKEN, address="203.0.113.9", channel="test")


@pytest.fixture
def busy(team: Team) -> Team:
    """A team in the middle of its work: a token in use, and keys."""
    owner = team.instance.database.read(lambda connection: users.user(connection, team.owner.user_id or 0))
    assert owner is not None
    tokens.create(team.instance, team.owner, owner, name="program", scopes=("*",), secret=TOKEN)
    authenticate(team)
    for number in range(3):
        new_credential(team, f"laptop-{number}")
    return team


CALLS: dict[str, tuple[Callable[[Team], Any], int]] = {
    "who asks": (authenticate, 1),
    "add a credential": (lambda team: new_credential(team, "one-more"), 5),
    "get a credential": (lambda team: credentials.get(team.instance, team.owner, team.server.id, 1), 1),
    "a page of credentials": (lambda team: credentials.find(team.instance, team.owner, team.server.id), 1),
    "add a user key": (
        lambda team: user_keys.add(team.instance, team.owner, title="mine", public_key=fresh_line()),
        9,
    ),
    "a page of user keys": (lambda team: user_keys.find(team.instance, team.owner, offset=0, limit=20), 1),
}


@pytest.mark.parametrize("name", CALLS)
def test_frequent_calls_take_few_statements(busy: Team, name: str) -> None:
    call, most = CALLS[name]
    if "add" not in name:
        call(busy)  # on PostgreSQL it shows the first time whether a question is one statement
    with all_statements() as seen:
        call(busy)
    mine = [one for one in seen if "changes" not in one]  # those of the writer, one for all that commit together
    assert 1 <= len(mine) <= most, "\n".join(mine)


WAITS = {
    "who asks": 1,
    "add a credential": 2,
    "get a credential": 1,
    "a page of credentials": 1,
    "add a user key": 4,
    "a page of user keys": 1,
}


@pytest.mark.parametrize("name", WAITS)
def test_postgresql_is_seldom_waited_for(busy: Team, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What needs no answer goes with the next question, and the end of what only read with the next use."""
    if busy.instance.database.dialect != "postgresql":
        pytest.skip("SQLite is not waited for")
    call, most = CALLS[name][0], WAITS[name]
    waited: list[int] = []
    read = _Pipeline.read

    def noted(pipeline: _Pipeline) -> None:
        waited.append(id(pipeline))
        read(pipeline)

    if "add" not in name:
        call(busy)
    monkeypatch.setattr(_Pipeline, "read", noted)
    call(busy)
    assert 1 <= len(waited) <= most


def test_a_token_revoked_by_another_process_ends_at_once(busy: Team, database_url: str, tmp_path: Any) -> None:
    actor = authenticate(busy)
    other = app.open_instance(busy.instance.settings)
    try:
        other.database.write(lambda connection: token_rows.revoke_token(connection, actor.token_id or 0, other.now()))
    finally:
        other.database.close()
    with pytest.raises(Refusal):
        authenticate(busy)


def test_a_row_that_was_read_before_is_checked_again_where_it_was_changed(busy: Team) -> None:
    """What is kept of it is what it said then; whoever writes to the database alone must gain nothing by that."""
    assert authenticate(busy).role is not None
    statement = update(tables.tokens).values(scopes=["*", "iam:*"])
    busy.instance.database.write(lambda connection: connection.execute(statement))
    with pytest.raises(Refusal):
        authenticate(busy)


def test_only_the_last_state_of_a_row_is_kept_in_memory(busy: Team) -> None:
    """What was read of a host's row changes with each key and each report: in memory nothing must grow by that."""
    seals = busy.instance.database.seals
    for number in range(5):
        new_credential(busy, f"another-{number}")
        found = busy.instance.database.read(lambda connection: servers.by_ids(connection, [busy.server.id]))
        assert found[busy.server.id].revision >= number
    assert [len(rows) for (of, _), rows in seals.kept.items() if of is servers._servers] == [1]
    assert not seals.summands  # no host, whose document would ask for them


def test_threads_that_ask_at_once_get_their_own_answers(busy: Team) -> None:
    found: list[tuple[int, int]] = []

    def ask(number: int) -> None:
        for _ in range(50):
            credential = credentials.get(busy.instance, busy.owner, busy.server.id, number)
            found.append((number, credential.id))

    threads = [threading.Thread(target=ask, args=(1 + number % 3,)) for number in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 450
    assert all(asked == answered for asked, answered in found)
