"""Each login that a host tells of is an event with the key that signed and whose it is: once, and never without end."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from keyrack.core.audit import events
from keyrack.core.hosts import logins
from keyrack.core.keys import credentials, user_keys
from keyrack.model import Event, EventFilter
from keyrack.ssh.public_key import parse
from keyrack.store import tables
from tests.core.conftest import Team
from tests.core.keys_for_tests import fresh_line
from tests.core.test_break_glass import use
from tests.core.test_host_reports import tell


def logged_logins(team: Team) -> list[Event]:
    """The events of logins, oldest first."""
    found = events.find(team.instance, team.owner, limit=1000).items
    return [one for one in found if one.action == logins.ACTION][::-1]


def batch(name: str, *entries: dict[str, str], **more: Any) -> dict[str, Any]:
    """Logins as agents tell them."""
    return {"batch": name * 16, "entries": list(entries), "more": 0, "anybodys": False, **more}


def test_a_login_is_an_event_that_names_the_owner_of_the_key(team: Team) -> None:
    own, on_server, strange = fresh_line(), fresh_line(), fresh_line()
    user_keys.add(team.instance, team.member, title="laptop", public_key=own)
    credentials.add(team.instance, team.owner, team.server.id, label="backup", username="deploy", public_key=on_server)
    without = use(team, strange, fingerprint="")
    tell(team, logins=batch("a", use(team, own), use(team, on_server), use(team, strange), without))
    by_owner, by_server, by_stranger, by_password = logged_logins(team)
    fingerprint = parse(own).fingerprint
    where = "logged in as deploy on web-1 from 203.0.113.7"
    assert by_owner.summary == f"alice {where} with SSH key laptop ({fingerprint})"
    assert (by_owner.actor_name, by_owner.actor_id, by_owner.channel) == ("alice", team.member.user_id, "ssh")
    assert (by_owner.address, by_owner.server_id) == ("203.0.113.7", team.server.id)
    assert f"Somebody {where} with SSH key backup (" in by_server.summary
    assert "not registered here" in by_stranger.summary
    assert "without a key of their own" in by_password.summary
    assert by_password.actor_name == "keyrack"
    # As an auditor looks for them.
    assert events.find(team.instance, team.owner, EventFilter(key=fingerprint), limit=1).items[0].id == by_owner.id
    mine = events.find(team.instance, team.owner, EventFilter(person="alice")).items
    assert mine[0].id == by_owner.id


def test_a_key_given_to_somebody_else_in_the_database_names_them_in_no_login(team: Team) -> None:
    line = fresh_line()
    user_keys.add(team.instance, team.member, title="laptop", public_key=line)
    change = tables.user_keys.update().values(user_id=team.owner.user_id)
    team.instance.database.write(lambda connection: connection.execute(change))
    tell(team, logins=batch("a", use(team, line)))
    (one,) = logged_logins(team)
    assert (one.actor_name, "not registered here" in one.summary) == ("keyrack", True)


def test_a_malformed_entry_does_not_lose_other_logins(team: Team) -> None:
    line = fresh_line()
    strange: Any = ("x", 7, None, [], {"fingerprint": {}})
    tell(team, logins=batch("a", *strange, use(team, line)))
    assert len(logged_logins(team)) == 1


def test_a_batch_of_logins_counts_once_however_often_it_is_reported(team: Team) -> None:
    line = fresh_line()
    first = batch("a", use(team, line), use(team, line))
    for _ in range(3):
        tell(team, logins=first)
    assert len(logged_logins(team)) == 2
    tell(team, logins=batch("b", use(team, line)))
    assert len(logged_logins(team)) == 3


def test_a_host_that_reports_without_end_is_counted(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logins, "MAX_PER_HOUR", 3)
    line = fresh_line()
    for name in "abcd":
        tell(team, logins=batch(name, use(team, line), use(team, line), more=5))
    assert len(logged_logins(team)) == 3
    later = replace(team, instance=replace(team.instance, now=lambda: team.instance.now() + timedelta(hours=1)))
    tell(later, logins=batch("e", use(later, line)))
    *_, counted, fresh = logged_logins(later)
    assert "told of 25 more logins in the hour from" in counted.summary
    assert "logged in as deploy" in fresh.summary


def test_a_malformed_login_of_a_batch_is_left_out_and_the_others_are_kept(team: Team) -> None:
    line = fresh_line()
    strange: list[Any] = [None, [], {"batch": "x", "entries": []}, {"batch": "a" * 16}, {"batch": 5, "entries": [1]}]
    for one in strange:
        tell(team, logins=one)
    assert logged_logins(team) == []
    bad = [use(team, line, address="nowhere"), use(team, line, user=""), use(team, line, fingerprint="SHA256:x")]
    tell(team, logins=batch("a", *bad, use(team, line), more=True, anybodys=True))
    (one,) = logged_logins(team)
    assert one.summary.endswith("; its log takes lines from every account there")


def test_a_login_that_is_reported_late_says_when_it_was(team: Team) -> None:
    line = fresh_line()
    late = use(team, line, timedelta(hours=9))
    tell(team, logins=batch("a", late))
    (one,) = logged_logins(team)
    assert one.summary.endswith(f", at {late['at'][:10]} {late['at'][11:19]} UTC")


def test_a_clock_that_is_set_back_does_not_keep_logins_out_of_the_log(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logins, "MAX_PER_HOUR", 2)
    line = fresh_line()
    ahead = replace(team.instance, now=lambda: team.instance.now() + timedelta(days=365))
    tell(replace(team, instance=ahead), logins=batch("a", *[use(team, line)] * 3))
    assert len(logged_logins(team)) == 2
    tell(team, logins=batch("b", use(team, line)))
    assert team.server.name in logged_logins(team)[-1].summary
    assert "is not registered" in logged_logins(team)[-1].summary
    assert len([one for one in logged_logins(team) if "is not registered" in one.summary]) == 3
