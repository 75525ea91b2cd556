"""How many there are on all pages: right after each change, by whichever process, and not counted where none was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Table, func, select

from keyrack import app
from keyrack.core.hosts import system_users
from keyrack.core.instance import Instance
from keyrack.core.keys import credentials, user_keys
from keyrack.core.people import actors
from keyrack.core.people import users as people
from keyrack.errors import Refusal
from keyrack.model import Window
from keyrack.store import tables
from keyrack.store.keys import credential_lists
from keyrack.store.keys import user_keys as key_rows
from keyrack.store.people import users
from tests.core.conftest import Team
from tests.core.keys_for_tests import fresh_line
from tests.statements import each_prepared


def rows_of(instance: Instance, table: Table) -> int:
    """How many rows a table has."""
    counted = select(func.count()).select_from(table)
    return int(instance.database.read(lambda connection: connection.execute(counted).scalar_one()))


def add(instance: Instance, team: Team, label: str, **more: Any) -> Any:
    """One more key on the server."""
    line = fresh_line()
    given = {"label": label, "username": "deploy", "public_key": line} | more
    return credentials.add(instance, team.owner, team.server.id, **given)


def total(team: Team, instance: Instance, **asked: Any) -> int:
    """As a page of the server's keys says, twice the same."""
    found = [credentials.find(instance, team.owner, team.server.id, **asked).total for _ in range(2)]
    assert found[0] == found[1]
    return found[0]


def test_the_count_of_a_servers_keys_is_right_after_each_change(team: Team) -> None:
    here, there = team.instance, app.open_instance(team.instance.settings)
    try:
        for instance in (here, there):
            assert total(team, instance) == 0
        made = [add(instance, team, f"laptop-{number}") for number, instance in enumerate((here, there, here, there))]
        for instance in (here, there):
            assert total(team, instance, limit=3) == total(team, instance, offset=3, limit=3) == 4
            assert total(team, instance, offset=100) == 4
            assert total(team, instance, search="laptop-1") == 1
            assert total(team, instance, search="nothing") == 0
        credentials.delete(there, team.owner, team.server.id, made[0].id)
        with pytest.raises(Refusal):
            add(here, team, "laptop-1")
        assert (total(team, here), total(team, there)) == (3, 3) == (rows_of(here, tables.credentials),) * 2
        system_users.create(there, team.owner, team.server.id, username="another")
        add(here, team, "on-another", username="another")
        assert (total(team, here), total(team, there)) == (4, 4)
        another = system_users.find(here, team.owner, team.server.id, search="another").items[0]
        system_users.delete(there, team.owner, team.server.id, another.id)
        assert (total(team, here), total(team, there)) == (3, 3)
    finally:
        there.database.close()


def test_the_count_of_keys_is_right_once_one_ended(team: Team) -> None:
    """What ended counts no more from that moment on, though nothing was written then."""
    here = team.instance
    later = replace(here, now=lambda: here.now() + timedelta(hours=1))
    add(here, team, "stays")
    add(here, team, "ends", duration="30min")
    assert (total(team, here), total(team, later)) == (2, 1)
    assert credentials.end_expired(later, actors.system_actor()) == 1
    assert (total(team, here), total(team, later)) == (1, 1)


def test_the_count_of_a_persons_keys_is_right_after_each_change(team: Team) -> None:
    here, there = team.instance, app.open_instance(team.instance.settings)

    def found(instance: Instance, **asked: Any) -> int:
        pages = [user_keys.find(instance, team.member, **asked).total for _ in range(2)]
        assert pages[0] == pages[1]
        return pages[0]

    try:
        assert (found(here), found(there)) == (0, 0)
        mine = [
            user_keys.add(instance, team.member, title=f"laptop {number}", public_key=fresh_line())
            for number, instance in enumerate((here, there, here))
        ]
        for instance in (here, there):
            assert found(instance) == found(instance, offset=2) == found(instance, offset=50) == 3
            assert found(instance, search="LAPTOP 1") == 1
        user_keys.delete(there, team.member, mine[1].id)
        user_keys.add(there, team.owner, title="of another one", public_key=fresh_line())
        assert (found(here), found(there)) == (2, 2)
        every = [one.database.read(lambda c: key_rows.user_keys_of_workspace(c, 1, Window(1))) for one in (here, there)]
        assert [page.total for page in every] == [3, 3]
    finally:
        there.database.close()


def test_the_count_of_people_is_right_after_each_change(team: Team) -> None:
    def found() -> int:
        page = team.instance.database.read(
            lambda connection: users.page_of_users(
                connection, team.owner.workspace_id or 0, Window(1, offset=1), search=""
            )
        )
        return page.total

    assert found() == 2
    people.delete_user(team.instance, team.owner, team.member_user.id)
    assert found() == 1


LISTS: dict[str, Callable[[Connection, Team], Any]] = {
    "credentials": lambda connection, team: credential_lists.find_credentials(
        connection, team.owner.workspace_id or 0, team.server.id, at=team.instance.now(), offset=0, limit=2
    ),
    "user keys": lambda connection, team: key_rows.find_user_keys(connection, team.member.user_id or 0, limit=2),
}


@pytest.mark.parametrize("name", LISTS)
def test_nothing_is_counted_again_before_anything_changed(team: Team, name: str) -> None:
    if team.instance.database.dialect != "postgresql":
        pytest.skip("SQLite says nothing of what it left out")
    for number in range(3):
        add(team.instance, team, f"laptop-{number}")
        user_keys.add(team.instance, team.member, title=None, public_key=fresh_line())

    read = team.instance.database.read

    def left_out() -> bool:
        """Whether the list's statement, as it is asked now, did without its count."""
        asked: list[tuple[str, Any]] = []
        with each_prepared(lambda sql, values: asked.append((sql, values))):
            assert read(lambda connection: LISTS[name](connection, team).total) == 3
        sql, values = asked[-1]
        explain = f"EXPLAIN (ANALYZE, COSTS off) {sql}"
        plan = "\n".join(read(lambda connection: connection.exec_driver_sql(explain, values).scalars().all()))
        assert "Aggregate" in plan, plan
        return "Aggregate (never executed)" in plan

    assert [left_out(), left_out()] == [False, True]
    user_keys.add(team.instance, team.owner, title=None, public_key=fresh_line())
    credential = add(team.instance, team, "another-one")
    credentials.delete(team.instance, team.owner, team.server.id, credential.id)
    assert [left_out(), left_out()] == [False, True]
