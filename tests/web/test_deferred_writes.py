"""Keys entered in one transaction of SQLite's have their server and the tree written once, and none is lost by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, select, text

from keyrack.core.hosts import servers as core_servers
from keyrack.core.keys import user_keys
from keyrack.errors import Refusal
from keyrack.store import tables
from keyrack.store.database import WouldBlock
from keyrack.store.hosts import servers
from keyrack.store.keys import user_keys as key_rows
from keyrack.store.sealing import sealed
from keyrack.store.sealing.seals import Seen
from keyrack.web import group_commits
from tests.core.conftest import Team
from tests.core.keys_for_tests import fresh_line
from tests.statements import each_prepared
from tests.web.test_group_commits import acme, adding, commits, in_one_transaction, labels, revision
from tests.web.test_nonblocking import LONG

__all__ = ["acme"]


@pytest.fixture(autouse=True)
def _one_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is."""
    monkeypatch.setattr(group_commits, "TRANSACTION_SECONDS", 60.0)


def entering(team: Team, title: str, after: Callable[[], Any] = lambda: None) -> Callable[[], Any]:
    """A call that adds a key of the owner's own, and then does something more."""
    line = fresh_line()

    def add() -> Any:
        added = user_keys.add(team.instance, team.owner, title=title, public_key=line)
        after()
        return added

    return add


@contextmanager
def written() -> Iterator[dict[str, int]]:
    """How often servers' rows and the tree are written meanwhile."""
    seen = {"UPDATE servers": 0, "INTO access_tree": 0}

    def note(statement: str, _values: Any) -> None:
        for words in seen:
            seen[words] += words in statement

    with each_prepared(note):
        yield seen


def titles(team: Team) -> list[str]:
    return sorted(one.title or "" for one in user_keys.find(team.instance, team.owner).items)


def check(team: Team) -> None:
    """The server's row and its sum, and each key of a user, are as Keyrack wrote them last."""

    def ask(connection: Connection) -> bool:
        row = connection.execute(select(tables.servers)).one()
        keys = connection.execute(select(tables.user_keys)).mappings().all()
        known = [sealed.holds(connection, tables.user_keys, key) for key in keys]
        return servers.complete(connection, row.id) and sealed.holds(connection, tables.servers, row) and all(known)

    team.instance.database.seals.seen = Seen()
    assert team.instance.database.read(ask)
    assert not team.instance.database.seals.unreported


def test_keys_of_servers_and_of_users_write_each_row_above_them_once(acme: Team) -> None:
    before, revised = commits(acme), revision(acme)
    calls = [adding(acme, f"key-{number}") for number in range(5)]
    calls += [entering(acme, f"own-{number}") for number in range(5)]
    with written() as seen:
        made = in_one_transaction(acme.instance.database, *calls)
    assert not [one for one in made if isinstance(one, BaseException)]
    assert commits(acme) == before + 1
    assert seen == {"UPDATE servers": 1, "INTO access_tree": 1}
    assert [one.revision for one in made[:5]] == [revised + number for number in range(1, 6)]
    assert revision(acme) == revised + 5
    assert titles(acme) == [f"own-{number}" for number in range(5)]
    check(acme)


def test_an_undone_command_keeps_deferred_writes_of_the_others(acme: Team) -> None:
    """Also where that was written by the way, and is undone with it."""
    database, revised = acme.instance.database, revision(acme)

    def count() -> None:
        database.read(lambda connection: connection.execute(LONG).scalar())

    made = in_one_transaction(
        database, adding(acme, "a"), entering(acme, "own"), adding(acme, "b"), adding(acme, "slow", count),
        entering(acme, "slow", count), adding(acme, "a"), entering(acme, "other"), adding(acme, "c"),
    )  # fmt: skip
    assert [type(one) for one in made if isinstance(one, BaseException)] == [type(made[3]), type(made[4]), Refusal]
    assert isinstance(made[3], WouldBlock)
    assert isinstance(made[4], WouldBlock)
    assert (labels(acme), titles(acme)) == (["a", "b", "c"], ["other", "own"])
    assert [made[at].revision for at in (0, 2, 7)] == [revised + 1, revised + 2, revised + 3]
    assert revision(acme) == revised + 3
    check(acme)


def test_a_command_in_between_sees_deferred_writes_and_goes_on_from_them(acme: Team) -> None:
    def retagging() -> Any:
        return core_servers.retag(acme.instance, acme.owner, acme.server.id, ("web", "fleet"))

    def deleting() -> Any:
        newest = user_keys.find(acme.instance, acme.owner).items[0]
        return user_keys.delete(acme.instance, acme.owner, newest.id)

    own = entering(acme, "own")
    made = in_one_transaction(
        acme.instance.database, adding(acme, "a"), own, retagging, adding(acme, "b"),
        lambda: (entering(acme, "gone")(), deleting()), adding(acme, "c"), entering(acme, "last"),
    )  # fmt: skip
    assert not [one for one in made if isinstance(one, BaseException)]
    assert (labels(acme), titles(acme)) == (["a", "b", "c"], ["last", "own"])
    assert revision(acme) == made[5].revision
    check(acme)


def test_a_tree_that_others_changed_is_found_before_anything_is_kept(acme: Team) -> None:
    database = acme.instance.database
    entering(acme, "before")()

    def alter(connection: Connection) -> None:
        connection.execute(text("UPDATE access_tree SET content = zeroblob(length(content)) WHERE id = 0"))

    database.write(alter)
    database.seals.seen = Seen()
    calls = entering(acme, "one"), entering(acme, "two")
    before = commits(acme)
    assert all(isinstance(one, WouldBlock) for one in in_one_transaction(database, *calls))
    assert commits(acme) == before


def test_deferred_writes_that_fail_lose_their_transaction_and_nothing_more(
    acme: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no more room")

    with monkeypatch.context() as patched:
        patched.setattr("keyrack.store.sealing.access_tree.settle", fail)
        made = in_one_transaction(acme.instance.database, adding(acme, "a"), entering(acme, "own"))
    assert all(isinstance(one, WouldBlock) for one in made)
    assert (labels(acme), titles(acme)) == ([], [])
    assert [one.title for one in in_one_transaction(acme.instance.database, entering(acme, "own"))] == ["own"]
    assert acme.instance.database.read(lambda connection: key_rows.count_user_keys(connection, acme.owner.user_id or 0))
    check(acme)
