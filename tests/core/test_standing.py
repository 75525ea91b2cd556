"""Which alarms stand: as long as what they are about says so, or until somebody settles what nothing else can tell."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import update

from keyrack.core.audit import events, overview, standing
from keyrack.core.hosts import (
    database_rollback,
    documents,
    enrolment,
    host_keys,
    modes,
    reports,
    server_list,
    servers,
    troubles,
)
from keyrack.core.keys import credentials, damaged_rows
from keyrack.core.people import actors, users
from keyrack.errors import Kind, Refusal
from keyrack.model import EventFilter
from keyrack.store import tables
from tests.core.conftest import Team
from tests.core.keys_for_tests import fresh_line
from tests.core.test_break_glass import glass, use
from tests.core.test_false_receipts import alter
from tests.core.test_host_reports import tell
from tests.core.test_report_events import refuse
from tests.core.test_unmanaged_keys import here


def later(team: Team, days: float) -> Team:
    """The same so many days on."""
    return replace(team, instance=replace(team.instance, now=lambda: team.instance.now() + timedelta(days=days)))


def codes(team: Team) -> list[str]:
    """The kinds of what stands."""
    return [one.code for one in standing.find(team.instance, team.owner).standing]


def settled(team: Team) -> list[str]:
    """The kinds of what is said to be settled."""
    return [one.code for one in standing.find(team.instance, team.owner).settled]


def show(team: Team, *lines: str) -> None:
    """What its sshd shows, by the host's word."""
    reports.ingest(team.instance, here(team), {"host_keys": {"port": 22, "keys": list(lines)}})


def enrol(team: Team) -> None:
    """Its host is there and obeys."""
    enrolment.enrol(team.instance, servers.invite(team.instance, team.owner, team.server.id), {}, address="192.0.2.10")
    reports.ingest(team.instance, here(team), {"revision": here(team).revision, "state": "applied", "problems": []})


def test_an_alarm_stands_however_long_ago_it_was_raised_until_it_is_settled(team: Team) -> None:
    for line in (fresh_line(), fresh_line()):
        show(team, line)
    for days in (0, 2, 30):
        assert codes(later(team, days)) == [host_keys.CHANGED]
        assert not overview.get(later(team, days).instance, team.owner).is_quiet
    host_keys.confirm(team.instance, team.owner, "web-1")
    assert codes(team) == []
    assert settled(team) == [host_keys.CHANGED]
    assert settled(later(team, 2)) == []
    assert overview.get(team.instance, team.owner).alarms.standing == ()


def test_an_alarm_is_counted_neither_as_a_refusal_nor_as_a_change(team: Team) -> None:
    def today() -> tuple[int, int]:
        return overview.get(team.instance, team.owner).days[-1][1:]

    def refused() -> int:
        return events.find(team.instance, team.owner, EventFilter(kind=events.REFUSED)).total

    show(team, fresh_line())
    done, tried = today()
    show(team, fresh_line())
    assert codes(team) == [host_keys.CHANGED]
    assert today()[1] == tried == refused() == 0
    with pytest.raises(Refusal):
        servers.create(team.instance, team.member, name="web-9", address="192.0.2.9")
    assert today()[1] == refused() == 1
    assert today()[0] >= done


def test_an_alarm_about_a_report_ends_when_the_host_no_longer_reports_it(team: Team) -> None:
    enrol(team)
    refuse(team, "its signature is another's", state="refused")
    assert codes(team) == ["document-refused"]
    refuse(team, "no space left", state="failed")
    assert codes(team) == ["document-failed"]
    assert settled(team) == ["document-refused"]
    reports.ingest(team.instance, here(team), {"revision": 1, "state": "applied", "problems": ["the clock is ahead"]})
    found = standing.find(team.instance, team.owner)
    assert (found.standing, [words for *_, words in found.saying]) == ((), ["the clock is ahead"])
    assert server_list.find(team.instance, team.owner, state=server_list.PROBLEMS).total == 1
    reports.ingest(team.instance, here(team), {"revision": 1, "state": "applied", "problems": []})
    assert standing.find(team.instance, team.owner).saying == ()
    assert server_list.find(team.instance, team.owner, state=server_list.PROBLEMS).total == 0


def test_a_break_glass_alarm_stands_until_somebody_settles_it(team: Team) -> None:
    line = glass(team, "credential")
    tell(team, last_used=[use(team, line)])
    (alarm,) = standing.find(team.instance, team.owner).standing
    assert alarm.event_id is not None
    assert codes(later(team, 6)) == ["break-glass"]
    with pytest.raises(Refusal) as refused:
        standing.settle(team.instance, team.member, alarm.event_id)
    assert refused.value.kind is Kind.FORBIDDEN
    with pytest.raises(Refusal) as missing:
        standing.settle(team.instance, team.owner, alarm.event_id + 1000)
    assert missing.value.kind is Kind.MISSING
    done = standing.settle(team.instance, team.owner, alarm.event_id)
    assert (done.settled, done.settled_by) == (True, "olga")
    assert (codes(team), settled(team)) == ([], ["break-glass"])
    (said, *_) = events.find(team.instance, team.owner, EventFilter(kind=events.ALARM)).items
    assert said.summary.startswith("Settled the alarm: glass broken: alice")
    assert standing.settle(team.instance, team.owner, alarm.event_id).settled_by == "olga"
    tell(later(team, 1), last_used=[use(later(team, 1), line)])
    assert codes(later(team, 1)) == ["break-glass"]


def test_an_alarm_that_ends_by_itself_cannot_be_settled_by_hand(team: Team) -> None:
    database_rollback.note_diverged(team.instance, team.server.id, 99)
    (alarm,) = standing.find(team.instance, team.owner).standing
    assert alarm.event_id is not None
    with pytest.raises(Refusal) as refused:
        standing.settle(team.instance, team.owner, alarm.event_id)
    assert (refused.value.kind, refused.value.code) == (Kind.TAKEN, "alarm-stands")
    assert "Decide what stays refused there." in refused.value.message


def test_a_damaged_row_is_settled_when_it_is_removed(team: Team) -> None:
    made = credentials.add(
        team.instance, team.owner, team.server.id, label="ci", username="deploy", public_key=fresh_line()
    )
    rows = tables.credentials
    alter(team.instance, update(rows).where(rows.c.id == made.id).values(label="other"))
    documents.signed(team.instance, team.server.id)
    assert codes(team) == [standing.SEAL]  # both looks name one row
    damaged_rows.remove(team.instance, team.owner, f"credential:{made.id}")
    assert (codes(team), settled(team)) == ([], [standing.SEAL])


def test_a_host_that_took_enforcing_back_may_be_left_observing(team: Team) -> None:
    enrol(team)
    modes.set_mode(team.instance, team.owner, team.server.id, "enforce")

    def say(why: str) -> None:
        reports.ingest(team.instance, here(team), {"facts": {"enforcement": "undone", "undone": why}})

    reports.ingest(team.instance, here(team), {"facts": {"enforcement": "enforce"}})
    say("nobody could log in")
    assert codes(team) == ["enforcing-undone"]
    modes.set_mode(team.instance, team.owner, team.server.id, "observe")
    say("nobody could log in")  # it goes on saying so
    assert codes(team) == []
    say("another reason")
    assert codes(team) == ["enforcing-undone"]


def test_a_host_key_that_nobody_confirmed_is_found_and_marked(team: Team) -> None:
    other = servers.create(team.instance, team.owner, name="web-2", address="192.0.2.11")
    found = [team.server, other]
    assert troubles.unconfirmed_host_keys(team.instance, team.owner, found) == frozenset()
    for line in (fresh_line(), fresh_line()):
        show(team, line)
    assert troubles.unconfirmed_host_keys(team.instance, team.owner, found) == {team.server.id}
    page = server_list.find(team.instance, team.owner, state=server_list.HOST_KEY)
    assert [one.name for one in page.items] == ["web-1"]
    stranger = actors.system_actor(users.create_workspace(team.instance, actors.system_actor(), "umbrella").id)
    assert server_list.find(team.instance, stranger, state=server_list.HOST_KEY).total == 0
    assert troubles.unconfirmed_host_keys(team.instance, stranger, found) == frozenset()
    assert codes(replace(team, owner=stranger)) == []
