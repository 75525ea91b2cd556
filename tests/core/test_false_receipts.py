"""Who can write to the database alone makes no receipt say that a host obeys: it is named, and the host asked again."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection, Executable, select, text, update

from keyrack import app
from keyrack.core import sealing
from keyrack.core.audit import events
from keyrack.core.hosts import documents, reports, servers, status
from keyrack.core.instance import Instance
from keyrack.core.keys import credentials, receipts, revocation, user_keys
from keyrack.core.keys.receipts import Receipt
from keyrack.core.people import offboarding, offboarding_undo
from keyrack.model import Server
from keyrack.ssh.public_key import parse
from keyrack.store.git import git_endpoints
from keyrack.store.sealing import access_tree, sealed
from keyrack.store.sealing.canonical_json import encode_typed
from keyrack.store.sealing.seals import seals_of
from keyrack.store.tables import access_tree as access_tree_rows
from keyrack.store.tables import columns, deleted_servers, offboarding_git, offboarding_hosts, offboardings, revocations
from keyrack.store.tables import servers as server_rows
from tests.core.all_damaged_rows import damaged
from tests.core.background_check import alarms, check_all_rows
from tests.core.conftest import Team
from tests.core.keys_for_tests import fresh_line
from tests.core.set_back import to_before
from tests.core.test_receipts import enrol, more_servers, obey, put


def alter(instance: Instance, *statements: Executable) -> list[Any]:
    """Write past Keyrack, as whoever can write to the database may; answers the rows that the last one gives."""

    def change(connection: Connection) -> list[Any]:
        for statement in statements:
            result = connection.execute(statement)
        return list(result.mappings()) if result.returns_rows else []

    return instance.database.write(change)


def revoked(team: Team, *hosts: Server) -> str:
    """A key that was on hosts and is revoked everywhere; its fingerprint."""
    line = fresh_line()
    for host in hosts:
        put(team, host, line[-12:], line)
    revocation.revoke_everywhere(team.instance, team.owner, parse(line).fingerprint)
    return parse(line).fingerprint


def of(team: Team, fingerprint: str, server: Server) -> Receipt:
    """The receipt of one server for a revoked key."""
    found = receipts.of_key(team.instance, team.owner, fingerprint).of
    return next(one for one in found if one.server_id == server.id)


def standing(team: Team) -> status.HostStatus:
    """What is shown of the host."""
    return status.of(team.instance, servers.get(team.instance, team.owner, team.server.id))


def named(team: Team) -> list[str]:
    """What alarms say of receipts."""
    return [one for one in alarms(team) if "What a host acknowledged" in one]


@pytest.mark.parametrize("code", ["none", "of another host", "of another time"])
def test_an_acknowledgement_entered_in_the_database_does_not_count_and_the_host_is_asked_again(
    team: Team, code: str
) -> None:
    other = more_servers(team, 1)[0]
    enrol(team, team.server, other)
    first = revoked(team, team.server, other)
    for host in (team.server, other):
        obey(team, host)
    assert of(team, first, team.server).done
    assert of(team, first, other).done
    second = revoked(team, team.server, other)
    obey(team, other)
    of_which = revocations.c.server_id == (team.server.id if code == "of another time" else other.id)
    which = revocations.c.fingerprint == (first if code == "of another time" else second)
    (kept,) = alter(team.instance, select(revocations).where(of_which, which))
    entered = {"acknowledged_at": kept["acknowledged_at"], "receipt": None if code == "none" else kept["receipt"]}
    mine = (revocations.c.server_id == team.server.id, revocations.c.fingerprint == second)
    alter(team.instance, update(revocations).where(*mine).values(**entered))
    assert not of(team, second, team.server).done
    assert of(team, second, other).done
    assert of(team, first, team.server).done
    check_all_rows(team.instance)
    (alarm,) = named(team)
    assert f"revocation {team.server.id},{second}" in alarm
    (row,) = alter(team.instance, select(revocations).where(*mine))
    assert row["acknowledged_at"] is None, "counts and lists take it for acknowledged"
    obey(team, team.server)
    assert of(team, second, team.server).done
    check_all_rows(team.instance)
    assert len(named(team)) == 1
    assert damaged(team.instance, team.owner) == []


def test_a_host_does_not_obey_by_a_number_in_its_row(team: Team) -> None:
    instance = team.instance
    enrol(team, team.server)
    obey(team, team.server)
    fingerprint = revoked(team, team.server)
    event = events.find(instance, team.owner, limit=1).items[0]
    now = servers.get(instance, team.owner, team.server.id)
    alter(
        instance,
        update(server_rows)
        .where(server_rows.c.id == team.server.id)
        .values(applied_revision=now.revision, applied_at=now.applied_at),
    )
    shown = standing(team)
    assert (shown.applied, shown.applied_at) == (0, None)
    assert not receipts.of_event(instance, team.owner, event.id).done
    check_all_rows(instance)
    assert any(f"server {team.server.id} ({team.server.name})" in one for one in named(team))
    obey(team, team.server)
    assert receipts.of_event(instance, team.owner, event.id).done
    assert of(team, fingerprint, team.server).done
    assert standing(team).applied > now.revision


def test_a_receipt_of_an_earlier_machine_does_not_count_for_the_one_enrolled_in_its_place(team: Team) -> None:
    instance = team.instance
    enrol(team, team.server)
    obey(team, team.server)
    which = server_rows.c.id == team.server.id
    (kept,) = alter(instance, select(server_rows).where(which))
    enrol(team, team.server)
    names = ("applied_revision", "applied_lineage", "applied_at", "receipt")
    alter(instance, update(server_rows).where(which).values({name: kept[name] for name in names}))
    assert standing(team).applied == 0
    check_all_rows(instance)
    assert len(named(team)) == 1


@pytest.mark.parametrize("newest", [True, False], ids=["of what it obeys", "of what came before"])
def test_a_receipt_that_was_taken_away_is_named_and_the_host_is_asked_again(team: Team, newest: bool) -> None:
    """It shows by the revision that the host obeys, or, where more was written since, by what it acknowledged then."""
    instance = team.instance
    other = more_servers(team, 1)[0]
    enrol(team, team.server, other)
    first = revoked(team, team.server, other)
    obey(team, team.server)
    second = revoked(team, team.server, other)
    obey(team, team.server)
    if not newest:
        put(team, team.server, "later", fresh_line())
    check_all_rows(instance)
    assert named(team) == []
    mine = (revocations.c.server_id == team.server.id, revocations.c.fingerprint == first)
    alter(instance, update(revocations).where(*mine).values(acknowledged_at=None, receipt=None))
    assert not of(team, first, team.server).done
    check_all_rows(instance)
    (alarm,) = named(team)
    assert f"revocation {team.server.id},{first}" in alarm
    assert "taken away" in alarm
    check_all_rows(instance)
    assert len(named(team)) == 1
    assert not of(team, first, team.server).done
    assert of(team, second, team.server).done
    obey(team, team.server)
    assert of(team, first, team.server).done
    check_all_rows(instance)
    assert len(named(team)) == 1, "what waits for the other host was never acknowledged"
    assert damaged(instance, team.owner) == []


NOTHING = {"applied_revision": 0, "applied_lineage": "", "applied_at": None, "receipt": None}


def take_all_away(team: Team, host: Server) -> None:
    """Empty every receipt of a host, and what its server's row says that it obeys."""
    emptied = {"acknowledged_at": None, "receipt": None}
    tables = (revocations, offboarding_hosts)
    rows = [update(table).where(table.c.server_id == host.id).values(**emptied) for table in tables]
    alter(team.instance, *rows, update(server_rows).where(server_rows.c.id == host.id).values(**NOTHING))


def test_all_receipts_of_a_host_taken_away_at_once_are_named_and_the_host_is_asked_again(team: Team) -> None:
    """Also where it is done again, and by whoever takes that there was one away too."""
    instance = team.instance
    other = more_servers(team, 1)[0]
    enrol(team, team.server, other)
    number = leaver(team, team.server, other)
    fingerprint = revoked(team, team.server, other)
    obey(team, team.server)
    obey(team, other)
    check_all_rows(instance)
    assert named(team) == []
    take_all_away(team, team.server)
    asked = servers.get(instance, team.owner, team.server.id).revision
    assert not of(team, fingerprint, team.server).done
    check_all_rows(instance)
    (alarm,) = named(team)
    assert f"server {team.server.id} ({team.server.name})" in alarm
    assert servers.get(instance, team.owner, team.server.id).revision == asked + 1
    check_all_rows(instance)
    check_all_rows(instance)
    assert len(named(team)) == 1, "the host is asked again, and nothing else is missing"
    assert servers.get(instance, team.owner, team.server.id).revision == asked + 1
    obey(team, team.server)
    assert of(team, fingerprint, team.server).done
    assert offboarding.get(instance, team.owner, number).done
    assert damaged(instance, team.owner) == []
    take_all_away(team, team.server)
    of_which = server_rows.c.id == team.server.id
    alter(instance, update(server_rows).where(of_which).values(first_applied_at=None))
    check_all_rows(instance)
    assert [row.kind for row in damaged(instance, team.owner)] == ["server"]


def test_a_host_that_gave_no_receipt_yet_is_not_reported_as_missing_one(team: Team) -> None:
    """A new host, one under another name, and one that is enrolled in the place of another, or after its server's."""
    instance = team.instance
    enrol(team, team.server)
    check_all_rows(instance)
    obey(team, team.server)
    servers.rename(instance, team.owner, team.server.id, name="another-name")
    check_all_rows(instance)
    enrol(team, team.server)
    revoked(team, team.server)
    check_all_rows(instance)
    reports.ingest(instance, team.server, {"revision": 1, "state": "failed", "problems": ["the disk is full"]})
    check_all_rows(instance)
    obey(team, team.server)
    servers.delete(instance, team.owner, team.server.id)
    again = servers.create(instance, team.owner, name="another-name", address="192.0.2.20")
    enrol(team, again)
    check_all_rows(instance)
    assert named(team) == []
    assert damaged(instance, team.owner) == []


@pytest.mark.parametrize("first", [True, False], ids=["from before its first", "from before its newest"])
def test_an_older_copy_that_is_put_back_misses_no_receipt(team: Team, first: bool) -> None:
    """A copy has what the host acknowledged by then, and that it did."""
    instance = team.instance
    enrol(team, team.server)
    if not first:
        obey(team, team.server)
        revoked(team, team.server)
    counted = (revocations, access_tree_rows)
    (then,) = alter(instance, select(server_rows).where(server_rows.c.id == team.server.id))
    older = {table: alter(instance, select(table)) for table in counted}
    obey(team, team.server)
    check_all_rows(instance)
    alter(instance, update(server_rows).where(server_rows.c.id == team.server.id).values(**then))
    for table in counted:
        alter(instance, table.delete(), *(table.insert().values(**row) for row in older[table]))
    check_all_rows(instance)
    assert named(team) == []


def test_a_deleted_acknowledgement_of_a_removal_is_noticed(team: Team) -> None:
    enrol(team, team.server)
    number = leaver(team, team.server)
    obey(team, team.server)
    alter(team.instance, update(offboarding_hosts).values(acknowledged_at=None, receipt=None))
    check_all_rows(team.instance)
    assert any("host of an offboarding" in one for one in named(team))
    obey(team, team.server)
    assert all(one.done for one in offboarding.get(team.instance, team.owner, number).hosts)


def leaver(team: Team, *hosts: Server) -> int:
    """Somebody with a key on hosts leaves; the offboarding's id."""
    line = fresh_line()
    user_keys.add(team.instance, team.member, title="one", public_key=line)
    for host in hosts:
        put(team, host, line[-12:], line)
    return offboarding.offboard(team.instance, team.owner, team.member_user.name).id


def test_an_offboarding_is_not_completed_by_rows_entered_in_the_database(team: Team) -> None:
    instance = team.instance
    other = more_servers(team, 1)[0]
    enrol(team, team.server, other)
    number = leaver(team, team.server, other)
    at = instance.now()
    mine = offboarding_hosts.c.server_id == team.server.id
    alter(instance, update(offboarding_hosts).where(mine).values(acknowledged_at=at))
    obey(team, other)
    done = {one.server_id: one.done for one in offboarding.get(instance, team.owner, number).hosts}
    assert done == {team.server.id: False, other.id: True}
    summaries = [event.summary for event in events.find(instance, team.owner, limit=100).items]
    assert not any("Every host obeys" in one for one in summaries), "an event says what no host said"
    check_all_rows(instance)
    assert any("host of an offboarding" in one for one in named(team))
    obey(team, team.server)
    assert all(one.done for one in offboarding.get(instance, team.owner, number).hosts)
    summaries = [event.summary for event in events.find(instance, team.owner, limit=100).items]
    assert any("Every host obeys" in one for one in summaries)


@pytest.mark.parametrize("values", [{"revision": 1}, {"name": "web-9"}, None], ids=["revision", "name", "deleted"])
def test_the_hosts_that_an_offboarding_waits_for_are_sealed(team: Team, values: dict[str, Any] | None) -> None:
    enrol(team, team.server)
    number = leaver(team, team.server)
    mine = offboarding_hosts.c.offboarding_id == number
    change = offboarding_hosts.delete() if values is None else update(offboarding_hosts).values(**values)
    alter(team.instance, change.where(mine))
    (row,) = damaged(team.instance, team.owner)
    assert row.kind == "offboarding-host"
    assert str(number) in row.name


def test_a_git_endpoint_acknowledges_by_itself(team: Team) -> None:
    instance = team.instance
    endpoint = instance.database.write(lambda connection: git_endpoints.begin(connection, "git-1", instance.now()))
    number = leaver(team, team.server)

    def done() -> bool:
        (one,) = offboarding.get(instance, team.owner, number).git
        return one.acknowledged_at is not None

    assert not done()
    alter(instance, update(offboarding_git).values(acknowledged_at=instance.now()))
    assert not done()
    (row,) = damaged(instance, team.owner)
    assert row.kind == "offboarding-git"
    alter(instance, update(offboarding_git).values(acknowledged_at=None))
    at = instance.now()
    instance.database.write(lambda connection: git_endpoints.acknowledge(connection, number, endpoint, at, 1))
    assert done()


def test_the_receipt_of_a_deleted_servers_host_counts_for_it_alone(team: Team) -> None:
    enrol(team, team.server)
    fingerprint = revoked(team, team.server)
    servers.delete(team.instance, team.owner, team.server.id)
    assert not of(team, fingerprint, team.server).done
    alter(team.instance, update(deleted_servers).values(acknowledged_at=team.instance.now()))
    assert not of(team, fingerprint, team.server).done


BEFORE = to_before("0375", at="0370")


@pytest.mark.parametrize("by_others", [False, True], ids=["an upgrade", "set back by others"])
def test_receipts_from_before_count_and_those_of_a_database_set_back_do_not(team: Team, by_others: bool) -> None:
    enrol(team, team.server)
    fingerprint = revoked(team, team.server)
    number = leaver(team, team.server)
    if by_others:
        entered = {"acknowledged_at": team.instance.now()}
        alter(team.instance, *(update(table).values(**entered) for table in (revocations, offboarding_hosts)))
    else:
        obey(team, team.server)
        forget_the_first(team.instance)
        uncount(team.instance)
        (team.instance.settings.data / sealing.RECEIPTS).unlink()
    alter(team.instance, *map(text, BEFORE))
    team.instance.database.close()
    later = app.open_instance(team.instance.settings)
    try:
        assert (later.settings.data / sealing.RECEIPTS).exists()
        (one,) = receipts.of_key(later, team.owner, fingerprint).of
        (host,) = offboarding.get(later, team.owner, number).hosts
        assert (one.done, host.done) == ((not by_others,) * 2)
        names = {row.kind for row in damaged(later, team.owner)}
        assert names == ({"offboarding-host"} if by_others else set())
    finally:
        later.database.close()


def test_acknowledgements_from_before_the_columns_were_renamed_still_count(team: Team) -> None:
    instance = team.instance
    enrol(team, team.server)
    endpoint = instance.database.write(lambda connection: git_endpoints.begin(connection, "git-1", instance.now()))
    fingerprint = revoked(team, team.server)
    number, at = leaver(team, team.server), instance.now()
    put(team, team.server, "stays", fresh_line())
    obey(team, team.server)
    before = credentials.find(instance, team.owner, team.server.id).items

    def as_then(connection: Connection) -> None:
        git_endpoints.acknowledge(connection, number, endpoint, at, 1)
        row = dict(connection.execute(select(offboarding_git)).mappings().one())
        then = [offboarding_git.name, "confirmed_at", columns.as_microseconds(at), "endpoint_id", endpoint]
        text_then = encode_typed([*then, "name", "git-1", "offboarding_id", number, "stopped", 1])
        assert row["seal"] == seals_of(connection).mac(text_then.encode())
        kept = dict(connection.execute(select(offboardings.c.kept)).scalar_one())
        rows = [{name: row[name] for name in row if name != "acknowledged_at"} for row in kept["credentials"]]
        kept["credentials"] = [{**row, "delivered_at": columns.as_microseconds(at)} for row in rows]
        sealed.change(connection, offboardings, sealed.row_of(number), values={"kept": kept})

    instance.database.write(as_then)
    forget_the_first(instance)
    alter(instance, *map(text, to_before("0390", at="0375")))
    instance.database.close()
    later = app.open_instance(instance.settings)
    try:
        assert receipts.of_key(later, team.owner, fingerprint).done
        assert offboarding.get(later, team.owner, number).done
        assert credentials.find(later, team.owner, team.server.id).items == before
        assert damaged(later, team.owner) == []
        assert offboarding_undo.undo(later, team.owner, number).back["credentials"] == 1
        put_back = credentials.find(later, team.owner, team.server.id).items
        assert sorted(one.acknowledged for one in put_back) == [False, True]
    finally:
        later.database.close()


def forget_the_first(instance: Instance) -> None:
    """Have servers' rows know nothing of a first receipt, as before they did."""
    nothing = {"first_applied_at": None}
    instance.database.write(lambda connection: sealed.change(connection, server_rows, values=nothing))


def uncount(instance: Instance) -> None:
    """Have the places of offboardings hold nothing, as before they were counted."""

    def change(connection: Connection) -> None:
        for table in (offboarding_hosts, offboarding_git):
            for row in connection.execute(select(table)).mappings().all():
                access_tree.note(connection, table, dict(row), None)

    instance.database.write(change)


def test_a_revocation_that_a_document_had_no_room_for_is_not_acknowledged_with_it(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code of those that were acknowledged says nothing of the one that was not told yet."""
    monkeypatch.setattr(reports, "MAX_UNACKNOWLEDGED", 1)
    monkeypatch.setattr("keyrack.core.keys.access.MAX_UNACKNOWLEDGED", 1)
    enrol(team, team.server)
    lines = [fresh_line() for _ in range(2)]
    for line in lines:
        put(team, team.server, line[-12:], line)
    for one in credentials.find(team.instance, team.owner, team.server.id).items:
        credentials.delete(team.instance, team.owner, team.server.id, one.id)
    signed = documents.signed(team.instance, team.server.id)
    assert signed is not None
    reports.ingest(team.instance, team.server, {"revision": signed.revision, "state": "applied"})
    rows = alter(team.instance, select(revocations).order_by(revocations.c.revision))
    assert [row["acknowledged_at"] is None for row in rows] == [False, True]
    code = {name: rows[0][name] for name in ("acknowledged_at", "receipt")}
    alter(team.instance, update(revocations).values(**code))
    check_all_rows(team.instance)
    again = alter(team.instance, select(revocations).order_by(revocations.c.revision))
    assert [row["acknowledged_at"] is None for row in again] == [False, True]
