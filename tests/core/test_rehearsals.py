"""What a change would do to who can log in where is asked of all its hosts at once, on either database, and undone."""

from __future__ import annotations

from sqlalchemy import select

from keyrack.core.hosts import servers, system_users
from keyrack.core.instance import Instance
from keyrack.core.keys import changing_grants, grants, rehearsal, user_keys, who_can
from keyrack.model import Grant
from keyrack.store import tables
from tests.core.conftest import Team
from tests.core.keys_for_tests import fresh_line


def test_a_rehearsal_writes_no_revocations_that_it_would_have_to_undo(team: Team) -> None:
    instance, owner = team.instance, team.owner
    user_keys.add(instance, team.member, title="laptop", public_key=fresh_line())
    given = grants.give(instance, owner, user_id=team.member_user.id, server_id=team.server.id, system_user="deploy")
    written: list[int] = []

    def refused(inner: Instance) -> None:
        grants.take_back(inner, owner, given.id)
        written.append(inner.database.read(lambda c: len(c.execute(select(tables.revocations)).all())))

    assert [way.user for way in rehearsal.rehearse(instance, owner, refused).loses] == ["alice"]
    assert written == [0]
    refused(instance)
    assert written == [0, 1], "what is done in earnest is refused"


def test_a_rehearsal_asks_every_host_and_changes_nothing(team: Team) -> None:
    instance, owner = team.instance, team.owner
    user_keys.add(instance, team.member, title="laptop", public_key=fresh_line())
    for name in ("shop-1", "shop-2", "shop-3"):
        server = servers.create(instance, owner, name=name, address="192.0.2.30", tags=("shop",))
        system_users.create(instance, owner, server.id, username="deploy")
    of, at = team.member_user.id, team.server.id
    kept = grants.give(instance, owner, user_id=of, server_id=at, system_user="deploy")

    def give(inner: Instance) -> Grant:
        return grants.give(inner, owner, user_id=of, tag="shop", system_user="deploy")

    shown = rehearsal.rehearse(instance, owner, give)
    assert {way.server.name for way in shown.gains} == {"shop-1", "shop-2", "shop-3"}
    assert (shown.loses, shown.changes, shown.servers, shown.unknown) == ((), (), 3, ())
    assert [way.server.name for way in who_can.find(instance, owner, user="alice").items] == ["web-1"]

    given = give(instance)
    gone = rehearsal.rehearse(instance, owner, lambda inner: grants.take_back(inner, owner, given.id))
    assert {way.server.name for way in gone.loses} == {"shop-1", "shop-2", "shop-3"}
    other = rehearsal.rehearse(
        instance,
        owner,
        lambda inner: changing_grants.change(inner, owner, kept.id, restrictions={"command": "/bin/backup"}),
    )
    assert [(way.server.name, way.user) for way in other.changes] == [("web-1", "alice")]
    assert not grants.get(instance, owner, kept.id).restrictions
    # What was asked for all at once answers nothing that comes after it.
    grants.take_back(instance, owner, kept.id)
    assert len(who_can.find(instance, owner, user="alice").items) == 3
