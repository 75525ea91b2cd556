"""Keys of users that are entered at the same moment: what is in their way is asked in one go, and none sees less."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, func, select

from keyrack.core import next_steps
from keyrack.core.hosts import servers as core_servers
from keyrack.core.keys import credentials, grants, revocation, user_keys
from keyrack.core.people import groups, users
from keyrack.errors import Kind, Refusal
from keyrack.model import Actor, Credential, Role, UserKey
from keyrack.ssh.public_key import parse
from keyrack.store import tables
from keyrack.store.engine.pipeline import _Pipeline
from keyrack.store.keys import revocations
from keyrack.store.keys.new_user_keys import UserKeyPlace, UserKeyPlacePrefetch
from tests.core.conftest import Team, make_team
from tests.core.keys_for_tests import fresh_line
from tests.core.test_foreseen import adding, at_work, concurrently, is_whole, revision

__all__ = ["at_work"]


def entering(team: Team, line: str = "", *, title: str = "laptop", actor: Actor | None = None) -> Callable[[], UserKey]:
    key = line or fresh_line()
    return lambda: user_keys.add(team.instance, actor or team.member, title=title, public_key=key)


def giving(team: Team) -> Callable[[], Any]:
    return lambda: grants.give(team.instance, team.owner, user_id=team.member_user.id, **_web(team))


def _web(team: Team) -> dict[str, Any]:
    return {"server_id": team.server.id, "system_user": "deploy"}


def kinds(found: list[Any]) -> list[str]:
    return [one.code if isinstance(one, Refusal) else type(one).__name__ for one in found]


def counted(team: Team) -> tuple[int, int]:
    """How many keys of users there are, and in how many transactions those were entered."""
    keys = select(func.count()).select_from(tables.user_keys)
    asked = "SELECT count(DISTINCT xmin::text) FROM user_keys"

    def ask(connection: Connection) -> tuple[int, int]:
        return connection.execute(keys).scalar_one(), connection.exec_driver_sql(asked).scalar_one()

    return team.instance.database.read(ask)


def test_the_questions_of_keys_entered_together_are_waited_for_once(
    at_work: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[object] = []
    read = _Pipeline.read

    def noted(pipeline: _Pipeline) -> None:
        if not pipeline._raw.read_only:
            waited.append(pipeline)
        read(pipeline)

    calls = [entering(at_work) for _ in range(8)]
    monkeypatch.setattr(_Pipeline, "read", noted)
    found = concurrently(at_work, *calls)
    assert kinds(found) == ["UserKey"] * 8
    assert len(waited) <= 7, "not twice for each"
    assert counted(at_work) == (8, 1)


def test_the_second_registration_of_one_key_is_refused(at_work: Team) -> None:
    line = fresh_line()
    theirs = entering(at_work, line, actor=at_work.owner)
    found = concurrently(at_work, entering(at_work), entering(at_work, line), entering(at_work, line), theirs)
    assert kinds(found) == ["UserKey", "UserKey", "key-taken", "key-taken"]
    assert "You registered this key already" in str(found[2])
    assert "in use by another user" in str(found[3])
    assert next_steps.commands(str(found[3])) == ("keyrack keys claim",)
    assert "`" not in next_steps.sentence(str(found[3])), "it says what to do also without the command line"
    assert counted(at_work) == (2, 1)


def test_titles_are_free(at_work: Team) -> None:
    found = concurrently(at_work, *(entering(at_work, title="same") for _ in range(4)))
    assert kinds(found) == ["UserKey"] * 4


@pytest.mark.parametrize("most", [4, 18])
def test_keys_entered_together_do_not_exceed_the_limit_of_a_user(at_work: Team, most: int) -> None:
    """As many as are made together could fill what is left, or no."""
    settings = replace(at_work.instance.settings, max_user_keys=most)
    team = replace(at_work, instance=replace(at_work.instance, settings=settings))
    found = concurrently(team, *(entering(team) for _ in range(most + 4)))
    assert kinds(found) == ["UserKey"] * most + ["too-many-keys"] * 4
    assert counted(team)[0] == most


@pytest.mark.parametrize("way", ["disabled", "deleted", "fewer rights"])
def test_a_person_who_is_shut_out_meanwhile_registers_no_key(at_work: Team, way: str) -> None:
    def shut() -> Any:
        instance, owner, user_id = at_work.instance, at_work.owner, at_work.member_user.id
        if way == "deleted":
            return users.delete_user(instance, owner, user_id)
        if way == "disabled":
            return users.change(instance, owner, user_id, enabled=False)
        return users.change_rights(instance, owner, user_id, role=Role.MEMBER, policies=())

    mine = entering(at_work, actor=at_work.owner)
    found = concurrently(at_work, mine, entering(at_work), shut, entering(at_work), mine)
    assert kinds(found[:2]) == ["UserKey"] * 2
    assert not isinstance(found[2], BaseException)
    assert isinstance(found[3], Refusal)
    assert found[3].kind in (Kind.UNAUTHENTICATED, Kind.FORBIDDEN)
    assert is_whole(at_work)


def test_a_key_that_is_revoked_meanwhile_is_refused(at_work: Team) -> None:
    line = fresh_line()
    fingerprint = parse(line).fingerprint

    def revoking() -> Any:
        return revocation.revoke_everywhere(at_work.instance, at_work.owner, fingerprint, unknown=True)

    found = concurrently(at_work, entering(at_work), revoking, entering(at_work, line), entering(at_work))
    assert not isinstance(found[1], BaseException)
    assert isinstance(found[2], Refusal)
    assert "revoked" in str(found[2])
    assert counted(at_work)[0] == 2


def test_a_key_that_is_deleted_meanwhile_may_be_entered_again(at_work: Team) -> None:
    line = fresh_line()
    old = entering(at_work, line)()

    def deleting() -> Any:
        return user_keys.delete(at_work.instance, at_work.member, old.id)

    found = concurrently(at_work, entering(at_work), deleting, entering(at_work, line))
    assert kinds(found) == ["UserKey"] * 3


@pytest.mark.parametrize("way", ["by name", "by group", "by tag"])
def test_a_server_granted_meanwhile_gets_the_key(at_work: Team, way: str) -> None:
    """It may no longer refuse it, and its revision tells of it."""
    line = fresh_line()
    old = adding(at_work, "old", line)()
    credentials.delete(at_work.instance, at_work.owner, at_work.server.id, old.id)
    instance, owner, alice = at_work.instance, at_work.owner, at_work.member_user
    if way == "by group":
        groups.put(instance, owner, "ops", ())
        grants.give(instance, owner, group_id=groups.id_of(instance, owner, "ops"), **_web(at_work))
    elif way == "by tag":
        grants.give(instance, owner, user_id=alice.id, tag="fleet", system_user="deploy")

    def change() -> Any:
        if way == "by name":
            return giving(at_work)()
        if way == "by group":
            return groups.add_member(instance, owner, "ops", alice.name)
        return core_servers.retag(instance, owner, at_work.server.id, ("web", "fleet"))

    public_key = parse(line).canonical
    assert public_key in refused(at_work)
    found = concurrently(at_work, entering(at_work, actor=at_work.owner), change, entering(at_work, line))
    assert not [one for one in found if isinstance(one, BaseException)]
    assert public_key not in refused(at_work)
    assert is_whole(at_work)


def test_a_server_whose_grant_is_taken_back_meanwhile_gets_no_key(at_work: Team) -> None:
    given = giving(at_work)()

    def withdrawing() -> Any:
        return grants.take_back(at_work.instance, at_work.owner, given.id)

    found = concurrently(at_work, entering(at_work), withdrawing, entering(at_work))
    assert not [one for one in found if isinstance(one, BaseException)]
    before = revision(at_work)
    assert is_whole(at_work)
    concurrently(at_work, entering(at_work), entering(at_work))
    assert revision(at_work) == before


def refused(team: Team) -> Any:
    return team.instance.database.read(lambda connection: revocations.keys_on(connection, team.server.id))


def test_a_server_that_keys_of_both_kinds_change_is_seen_by_each_as_it_is(at_work: Team) -> None:
    """Each raises its revision by one, whichever came before it."""
    giving(at_work)()
    before = revision(at_work)
    free = entering(at_work, actor=at_work.owner)
    found = concurrently(
        at_work, adding(at_work, "a"), adding(at_work, "b"), entering(at_work), adding(at_work, "c"), free,
        adding(at_work, "d"), entering(at_work), entering(at_work), adding(at_work, "e"),
    )  # fmt: skip
    shorts = {Credential: "c", UserKey: "k"}
    assert "".join(shorts.get(type(one), "?") for one in found) == "cckckckkc"
    revisions = [one.revision - before for one in found if isinstance(one, Credential)]
    assert revisions == [1, 2, 4, 5, 8]
    assert revision(at_work) == before + 8
    assert is_whole(at_work)


@pytest.mark.parametrize("first", ["credential", "user key"])
def test_a_key_entered_for_a_user_and_for_a_server_is_refused_by_no_server(at_work: Team, first: str) -> None:
    giving(at_work)()
    line = fresh_line()
    old = adding(at_work, "old", line)()
    credentials.delete(at_work.instance, at_work.owner, at_work.server.id, old.id)
    public_key = parse(line).canonical
    assert public_key in refused(at_work)
    both: list[Callable[[], Any]] = [adding(at_work, "again", line), entering(at_work, line)]
    found = concurrently(
        at_work, adding(at_work, "a"), *(both if first == "credential" else both[::-1]), entering(at_work)
    )
    assert not [one for one in found if isinstance(one, BaseException)]
    assert public_key not in refused(at_work)
    assert is_whole(at_work)


def test_a_key_that_another_workspace_took_meanwhile_is_refused(at_work: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were made with it are made all the same, once."""
    other, line = make_team(at_work.instance, "globex"), fresh_line()
    get = UserKeyPlacePrefetch.get
    taken: list[UserKeyPlace] = []

    def late(asked: UserKeyPlacePrefetch, connection: Connection) -> UserKeyPlace:
        found = get(asked, connection)
        if asked._fingerprint == parse(line).fingerprint and not taken:
            assert found.reached is not None, "it was asked ahead"
            taken.append(found)
            thread = threading.Thread(target=entering(other, line))
            thread.start()
            thread.join()
        return found

    monkeypatch.setattr(UserKeyPlacePrefetch, "get", late)
    found = concurrently(at_work, entering(at_work), entering(at_work), entering(at_work, line), entering(at_work))
    assert kinds(found) == ["UserKey", "UserKey", "key-taken", "UserKey"]
    assert "in use by another user" in str(found[2])
    assert counted(at_work)[0] == 4
    assert is_whole(at_work)
