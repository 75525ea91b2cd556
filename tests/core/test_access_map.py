"""The access map asks of many hosts at once what each host's own document asks, and answers the same."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from sqlalchemy import insert, text

from keyrack.core.hosts import servers, system_users
from keyrack.core.keys import access, grants, user_keys, who_can
from keyrack.core.keys.access import Decision
from keyrack.core.people import groups, users
from keyrack.model import Role
from keyrack.store import tables
from keyrack.store.hosts import servers as server_rows
from keyrack.store.per_server import batch
from tests.core.conftest import Team, actor
from tests.core.keys_for_tests import fresh_line
from tests.statements import prepared_statements


def hosts_of_every_kind(team: Team) -> None:
    """Nine hosts of three tags; people let in by name, by tag, by group and everywhere, some until a moment."""
    instance, owner = team.instance, team.owner
    for number in range(9):
        tags = (f"tag-{number % 3}", "odd") if number % 2 else (f"tag-{number % 3}",)
        server = servers.create(instance, owner, name=f"host-{number}", address="192.0.2.30", tags=tags)
        system_users.create(instance, owner, server.id, username="deploy")
    made = [
        actor(instance, owner.workspace_id, f"person-{number}", Role.MEMBER, "codeartsrepo::*") for number in range(4)
    ]
    for who, _ in [*made, (team.member, team.member_user)]:
        for title in ("laptop", "phone"):
            user_keys.add(instance, who, title=title, public_key=fresh_line())
    groups.ensure(instance, owner, name="ops", user_ids=[user.id for _, user in made[:3]])
    ops = groups.id_of(instance, owner, "ops")
    soon = instance.now() + timedelta(minutes=5)
    grants.give(instance, owner, group_id=ops, tag="odd", system_user="deploy")
    grants.give(instance, owner, group_id=ops, tag="tag-1", system_user="deploy", expires_at=soon)
    grants.give(instance, owner, user_id=made[0][1].id, tag="tag-1", system_user="deploy")
    grants.give(instance, owner, user_id=made[3][1].id, all_servers=True, system_user="deploy")
    grants.give(instance, owner, user_id=team.member_user.id, server_id=team.server.id, system_user="deploy")
    users.change(instance, owner, made[2][1].id, enabled=False)


def both(team: Team, *, later: timedelta = timedelta()) -> tuple[list[Decision], list[Decision]]:
    """Who is let in on every host, asked of each and of all at once."""
    now = team.instance.now() + later

    def ask(connection: Any) -> tuple[list[Decision], list[Decision]]:
        found = servers_of(team, connection)
        each = [access.decide(team.instance, connection, one, now) for one in found]
        with batch(connection, [one.id for one in found]):
            return each, [access.decide(team.instance, connection, one, now) for one in found]

    return team.instance.database.read(ask)


def servers_of(team: Team, connection: Any) -> Any:
    return server_rows.find(connection, team.owner.workspace_id, search="", offset=0, limit=100).items


def test_all_hosts_asked_at_once_answer_as_each_by_itself(team: Team) -> None:
    hosts_of_every_kind(team)
    each, together = both(team)
    assert each == together
    assert sum(len(one.reasons) for one in each) > 40
    each_later, together_later = both(team, later=timedelta(minutes=6))
    assert each_later == together_later
    assert sum(len(one.reasons) for one in each_later) < sum(len(one.reasons) for one in each)


def test_a_row_that_is_not_keyracks_opens_nothing_at_once_either(team: Team) -> None:
    hosts_of_every_kind(team)
    instance = team.instance

    def forge(connection: Any) -> None:
        connection.execute(insert(tables.server_tags).values(server_id=team.server.id, tag="odd", seal=b"m" * 32))
        connection.execute(text("UPDATE users SET seal = :seal WHERE name = 'person-1'"), {"seal": b"m" * 32})

    instance.database.write(forge)

    def ask(connection: Any) -> tuple[Any, Any]:
        found, now = servers_of(team, connection), instance.now()
        each = [access.reasons(connection, one, now) for one in found]
        with batch(connection, [one.id for one in found]):
            return each, [access.reasons(connection, one, now) for one in found]

    each, together = instance.database.read(ask)
    assert each == together
    assert {one.kind for _, rows in together for one in rows} == {"tag of server", "user"}


def test_the_map_lists_logins_of_the_people_on_its_page_only(team: Team) -> None:
    hosts_of_every_kind(team)
    instance, owner = team.instance, team.owner
    whole = who_can.of_hosts(instance, owner)
    assert whole.people == ("alice", "person-0", "person-1", "person-3")
    page = who_can.of_hosts(instance, owner, people=slice(1, 2), last_uses=False)
    assert page.people == whole.people
    mine = tuple(replace(way, last_used_at=None) for way in whole.ways if way.user == "person-0")
    assert page.ways == mine
    assert len(mine) > 0
    assert who_can.of_hosts(instance, owner, users=frozenset({"alice"})).people == ("alice",)


def test_a_map_of_more_hosts_asks_no_more(team: Team) -> None:
    hosts_of_every_kind(team)

    def questions(limit: int) -> int:
        with prepared_statements() as asked:
            assert len(who_can.of_hosts(team.instance, team.owner, tag="odd", limit=limit).servers.items) == limit
        return len(asked)

    questions(4)  # what is remembered of seals is read once
    assert questions(4) == questions(2)
