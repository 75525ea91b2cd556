"""What was kept long enough goes, a little at a time and with an event; what still counts stays; on both databases."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, delete, func, insert, select, update

from keyrack.core.audit import events, retention
from keyrack.core.hosts import documents, enrolment, reports, servers
from keyrack.core.instance import Instance
from keyrack.core.keys import access, credentials, freezes, requests, revocation
from keyrack.core.people import offboarding
from keyrack.core.people.actors import system_actor
from keyrack.protocol import host_document
from keyrack.ssh.public_key import parse
from keyrack.store import tables
from keyrack.store.tables import offboarding_hosts
from tests.core.all_damaged_rows import damaged
from tests.core.conftest import Team
from tests.core.keys_for_tests import fresh_line
from tests.core.test_audit_chain import chained, outcome
from tests.core.test_unmanaged_keys import entry

DAY = timedelta(days=1)


def later(instance: Instance, by: timedelta) -> Instance:
    """The same instance some time on."""
    return replace(instance, now=lambda: instance.now() + by)


def rows(instance: Instance, table: Any) -> int:
    """How many rows a table has."""
    return instance.database.read(lambda c: c.execute(select(func.count()).select_from(table)).scalar_one())


def clear(instance: Instance) -> dict[str, int]:
    """Tidy until nothing is left; how many of each kind went."""
    gone: dict[str, int] = {}
    while found := retention.tidy(instance, system_actor()):
        for kind, count in found.items():
            gone[kind] = gone.get(kind, 0) + count
    return gone


def put(team: Team, line: str, label: str) -> int:
    """Put a key on deploy; its id."""
    made = credentials.add(team.instance, team.owner, team.server.id, label=label, username="deploy", public_key=line)
    return made.id


def obey(team: Team) -> None:
    """The host reports that it obeys its newest document."""
    signed = documents.signed(team.instance, team.server.id)
    assert signed is not None
    reports.ingest(team.instance, team.server, {"revision": signed.revision, "state": "applied"})


def test_the_log_is_kept_as_long_as_is_set_and_says_what_was_deleted(team: Team) -> None:
    count = events.find(team.instance, team.owner, limit=1).total
    assert count > 3
    assert clear(later(team.instance, 1095 * DAY)) == {}
    old = later(team.instance, 1097 * DAY)
    (due,) = [one for one in retention.due(old, system_actor()) if one.kind == "events"]
    gone = clear(old)
    assert gone["events"] == due.rows
    (left,) = events.find(team.instance, team.owner).items
    assert f"{count} events" in left.summary
    for_ever = replace(old, settings=replace(old.settings, events_days=0))
    assert clear(replace(for_ever, now=lambda: team.instance.now() + 9999 * DAY)).get("events") is None


def test_events_of_a_clock_that_ran_ahead_stay_and_keep_no_others(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH_SIZE", 3)
    instance, old = team.instance, later(team.instance, 1097 * DAY)
    for at, name in ((later(instance, 3000 * DAY), "ahead"), (instance, "then")):
        for number in range(4):
            servers.create(at, team.owner, name=f"{name}-{number}", address="192.0.2.9")
    chained(instance)
    clear(old)
    left = [event.summary for event in events.find(instance, team.owner, limit=100).items]
    assert [sum(name in one for one in left) for name in ("ahead-", "then-")] == [4, 0]
    chained(old)
    assert outcome(old).problem == ""
    assert outcome(old).pruned > 4
    # They are among those that went, and no event says that they did.
    gone = delete(tables.events).where(tables.events.c.summary.contains("ahead-1"))
    instance.database.write(lambda connection: connection.execute(gone))
    assert "is missing" in outcome(old).problem


def test_a_revocation_marked_in_the_database_as_acknowledged_long_ago_stays(team: Team) -> None:
    """Nor one of long ago: a host that was off all the time would let the key in."""
    line = fresh_line()
    credentials.delete(team.instance, team.owner, team.server.id, put(team, line, "laptop"))
    long_ago = team.instance.now() - 9999 * DAY
    alter = update(tables.revocations).values(acknowledged_at=long_ago)
    team.instance.database.write(lambda connection: connection.execute(alter))
    assert clear(team.instance).get("revocations") is None
    signed = documents.signed(team.instance, team.server.id)
    assert signed is not None
    assert parse(line).canonical in signed.text
    much_later = later(team.instance, 9999 * DAY)
    assert clear_once(much_later).get("revocations") is None
    signed = documents.signed(team.instance, team.server.id)
    assert signed is not None
    assert parse(line).canonical in signed.text


def clear_once(instance: Instance) -> dict[str, int]:
    """What one turn of tidying deletes."""
    return dict(retention.tidy(instance, system_actor()))


def test_an_acknowledged_revocation_goes_by_age_and_one_that_counts_stays(team: Team) -> None:
    old, unacknowledged, everywhere, by_hand = (fresh_line() for _ in range(4))
    for line in (old, everywhere, by_hand):
        put(team, line, line[-20:])
    for number in [one.id for one in credentials.find(team.instance, team.owner, team.server.id).items]:
        if credentials.get(team.instance, team.owner, team.server.id, number).public_key != parse(everywhere).canonical:
            credentials.delete(team.instance, team.owner, team.server.id, number)
    revocation.revoke_everywhere(team.instance, team.owner, parse(everywhere).fingerprint)
    reports.ingest(team.instance, team.server, {"keys_found": [entry(by_hand)]})
    obey(team)
    credentials.delete(team.instance, team.owner, team.server.id, put(team, unacknowledged, "u"))
    assert clear(later(team.instance, 399 * DAY)).get("revocations") is None
    assert clear(later(team.instance, 401 * DAY))["revocations"] == 1
    signed = documents.signed(team.instance, team.server.id)
    assert signed is not None
    refused = set(host_document.decode(signed.text).revoked)
    assert refused == {parse(line).canonical for line in (unacknowledged, everywhere, by_hand)}


def fill(team: Team, count: int, acknowledged: datetime | None) -> set[str]:
    """Have the team's server refuse so many keys; their lines."""
    lines = {fresh_line() for _ in range(count)}
    values = [
        {
            "server_id": team.server.id,
            "fingerprint": parse(line).fingerprint,
            "public_key": line,
            "revoked_at": team.instance.now(),
            "revision": 1,
            "acknowledged_at": acknowledged,
        }
        for line in lines
    ]
    team.instance.database.write(lambda connection: connection.execute(insert(tables.revocations), values))
    return lines


def test_a_document_stays_in_bounds_and_every_revocation_is_delivered(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (access, reports):
        monkeypatch.setattr(module, "MAX_UNACKNOWLEDGED", 30)
    fill(team, 150, team.instance.now())
    unacknowledged = fill(team, 70, None)
    bounded = replace(team.instance, settings=replace(team.instance.settings, max_revoked_keys=100))
    delivered: set[str] = set()
    for _ in range(4):
        signed = documents.signed(bounded, team.server.id)
        assert signed is not None
        revoked = host_document.decode(signed.text).revoked
        assert len(revoked) <= 130
        delivered |= set(revoked)
        before = waiting(team)
        reports.ingest(bounded, team.server, {"revision": signed.revision, "state": "applied"})
        assert before - waiting(team) <= 30
    assert waiting(team) == 0
    assert unacknowledged <= delivered


def waiting(team: Team) -> int:
    """How many revocations the host has not confirmed."""
    statement = (
        select(func.count()).select_from(tables.revocations).where(tables.revocations.c.acknowledged_at.is_(None))
    )
    return team.instance.database.read(lambda c: c.execute(statement).scalar_one())


def test_proofs_that_ended_go_and_those_in_force_stay(team: Team) -> None:
    now = team.instance.now()
    of_user = {"user_id": team.member_user.id, "workspace_id": team.server.workspace_id, "scopes": [], "details": {}}

    def command(connection: Connection) -> None:
        for number, (kind, end) in enumerate(
            (("iam", now - DAY), ("iam", now + DAY), ("api", now - DAY), ("api", None))
        ):
            secret = {"secret_hash": bytes([number]) * 32, "created_at": now, "name": str(number)}
            connection.execute(insert(tables.tokens).values(**of_user, **secret, kind=kind, expires_at=end))
        revoked = {"secret_hash": b"r" * 32, "created_at": now, "name": "revoked", "revoked_at": now}
        connection.execute(insert(tables.tokens).values(**of_user, **revoked, kind="api", expires_at=None))
        for number, (end, temporary) in enumerate(((now - DAY, b"t"), (now + DAY, b"t"), (now - DAY, None))):
            connection.execute(
                insert(tables.access_keys).values(
                    id=f"AK{number}",
                    user_id=team.member_user.id,
                    encrypted_secret=b"",
                    description="",
                    active=True,
                    security_token_hash=temporary and temporary * 32,
                    details={},
                    created_at=now,
                    expires_at=end,
                )
            )

    team.instance.database.write(command)
    assert clear(team.instance) == {"IAM tokens": 1, "temporary access keys": 1}
    assert clear(later(team.instance, 1097 * DAY))["other ended tokens"] == 2
    assert rows(team.instance, tables.access_keys) == 1


def test_last_uses_go_with_the_key_and_invitations_and_deleted_servers_by_age(team: Team) -> None:
    kept, gone = fresh_line(), fresh_line()
    put(team, kept, "a")
    now = team.instance.now()

    def command(connection: Connection) -> None:
        for line in (kept, gone):
            use = {"fingerprint": parse(line).fingerprint, "server_id": 0, "last_used_at": now, "address": ""}
            connection.execute(insert(tables.key_uses).values(use))

    team.instance.database.write(command)
    secret = servers.invite(team.instance, team.owner, team.server.id)
    enrolment.enrol(team.instance, secret, {}, address="192.0.2.1")
    assert clear(later(team.instance, 32 * DAY)) == {"enrolment tokens": 1}
    servers.delete(team.instance, team.owner, team.server.id)
    credentials_gone = later(team.instance, 401 * DAY)
    assert clear(credentials_gone) == {"last uses": 2, "deleted servers": 1}
    assert rows(team.instance, tables.deleted_server_keys) == 0


def test_requests_decided_long_ago_are_deleted_and_open_ones_stay(team: Team) -> None:
    wanted = {"server": "web-1", "system_user": "deploy", "duration": "1h"}
    settled, granted, _ = (requests.ask(team.instance, team.member, **wanted, reason=f"look {n}") for n in range(3))
    requests.cancel(team.instance, team.member, settled.id)
    requests.approve(team.instance, team.owner, granted.id)
    ended, _ = (freezes.freeze(team.instance, team.owner, server="web-1").freeze for _ in range(2))
    assert ended is not None
    freezes.end(team.instance, team.owner, ended.id)
    assert {"requests for access", "freezes", "offboardings"}.isdisjoint(clear(later(team.instance, 1095 * DAY)))
    offboarding.offboard(team.instance, team.owner, team.member.name)
    gone = clear(later(team.instance, 1200 * DAY))
    # An offboarding cancels what is pending.
    assert (gone["requests for access"], gone["freezes"], gone["offboardings"]) == (2, 1, 1)
    assert rows(team.instance, offboarding_hosts) == 0
    assert damaged(team.instance, team.owner) == []


def test_a_transaction_deletes_a_little_and_a_service_goes_on_calmly(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH_SIZE", 3)
    long_ago = team.instance.now() - 2000 * DAY
    clock = [0.0]
    timer = retention.TidyTimer(lambda: clock[0])
    timer.tidy(team.instance, system_actor())
    team.instance.database.write(lambda c: c.execute(update(tables.events).values(at=long_ago)))
    total = rows(team.instance, tables.events)
    clock[0] = 3600.0
    timer.tidy(team.instance, system_actor())
    assert total - 3 <= rows(team.instance, tables.events) < total
    for _ in range(total):
        timer.tidy(team.instance, system_actor())
    old = select(func.count()).select_from(tables.events).where(tables.events.c.at == long_ago)
    assert team.instance.database.read(lambda c: c.execute(old).scalar_one()) == 0
    # Nothing more to do for an hour.
    team.instance.database.write(lambda c: c.execute(update(tables.events).values(at=long_ago)))
    timer.tidy(team.instance, system_actor())
    assert team.instance.database.read(lambda c: c.execute(old).scalar_one()) > 0
    clock[0] = 7300.0
    timer.tidy(team.instance, system_actor())
    left = team.instance.database.read(lambda c: c.execute(old).scalar_one())
    for _ in range(50):
        timer.tidy(team.instance, system_actor())
    assert team.instance.database.read(lambda c: c.execute(old).scalar_one()) < max(left, 1)


@pytest.mark.parametrize("began", [True, False])
def test_a_clock_that_leapt_years_ahead_deletes_nothing_for_a_day(team: Team, began: bool) -> None:
    clock = [0.0]
    timer = retention.TidyTimer(lambda: clock[0])
    if began:  # the clock leaps while the service runs, else before it starts
        timer.tidy(team.instance, system_actor())
    ahead = later(team.instance, 4 * 365 * DAY)
    count = rows(team.instance, tables.events)
    credentials.end_expired(ahead, system_actor())
    for clock[0] in (1.0, 3700.0, 80_000.0):
        timer.tidy(ahead, system_actor())
    assert rows(team.instance, tables.events) == count
    # It is what the clock says, so long.
    clock[0] = 90_000.0
    timer.tidy(ahead, system_actor())
    assert rows(team.instance, tables.events) < count
