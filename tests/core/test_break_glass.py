"""Keys to break glass with: each use is an alarm that says who, where and how to end it; nothing drops them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from keyrack.agent.desired_state import as_offline
from keyrack.core.audit import events
from keyrack.core.hosts import break_glass, documents, modes, sessions
from keyrack.core.keys import credentials, grants, user_keys
from keyrack.model import Event
from keyrack.protocol import host_document
from keyrack.ssh.public_key import parse
from tests.core.conftest import Team
from tests.core.keys_for_tests import fresh_line
from tests.core.test_host_reports import session, tell


def alarms(team: Team) -> Sequence[Event]:
    """The alarms of the workspace, oldest first."""
    found = events.find(team.instance, team.owner, limit=100).items
    return [one for one in found if one.level == "alarm"][::-1]


def moment(team: Team, before: timedelta = timedelta()) -> str:
    """A time as agents write it."""
    return (team.instance.now() - before).strftime("%Y-%m-%dT%H:%M:%SZ")


def use(team: Team, line: str, before: timedelta = timedelta(), **more: str) -> dict[str, str]:
    """A login as agents tell it."""
    reported = {
        "fingerprint": parse(line).fingerprint,
        "at": moment(team, before),
        "address": "203.0.113.7",
        "user": "deploy",
    }
    return {**reported, **more}


def glass(team: Team, kind: str) -> str:
    """A key to break glass with as deploy: alice's own, by a credential or by a grant."""
    line = fresh_line()
    user_keys.add(team.instance, team.member, title="vault", public_key=line)
    if kind == "grant":
        assert team.member.user_id is not None
        to: dict[str, Any] = {"user_id": team.member.user_id, "server_id": team.server.id, "system_user": "deploy"}
        grants.give(team.instance, team.owner, **to, break_glass=True)
    else:
        terms: dict[str, Any] = {"label": "vault", "username": "deploy", "public_key": line, "break_glass": True}
        credentials.add(team.instance, team.owner, team.server.id, **terms)
    return line


@pytest.mark.parametrize("kind", ["credential", "grant"])
def test_a_use_of_a_break_glass_key_raises_an_alarm_that_says_who_where_and_how_to_end_it(
    team: Team, kind: str
) -> None:
    line = glass(team, kind)
    named = use(team, line)
    open_now = session("7-700", named["fingerprint"], started_at=named["at"])
    tell(team, last_used=[named], sessions=[open_now])
    (alarm,) = alarms(team)
    number = sessions.find(team.instance, team.owner, team.server.id).items[0].id
    for words in ("alice", "as deploy", "on web-1", "203.0.113.7", "vault", f"keyrack sessions end web-1 {number}"):
        assert words in alarm.summary
    assert (alarm.details["session"], alarm.details["user"], alarm.reason) == (number, "alice", "break-glass")
    assert alarm.details["end"] == f"DELETE /api/keyrack/v1/servers/{team.server.id}/sessions/{number}"
    # The same report again, and the session that goes on, raise no other alarm; the next login does.
    tell(team, last_used=[named], sessions=[open_now])
    assert len(alarms(team)) == 1
    tell(team, sessions=[])
    later = replace(team, instance=replace(team.instance, now=lambda: team.instance.now() + timedelta(hours=1)))
    tell(later, last_used=[use(later, line)])
    assert alarms(team)[-1].summary.endswith("the login is over already")


def test_a_use_while_the_service_was_away_raises_its_alarm_when_the_host_reports_again(team: Team) -> None:
    line = glass(team, "credential")
    long_ago = use(team, line, timedelta(hours=9))
    tell(team, last_used=[long_ago])
    (alarm,) = alarms(team)
    assert alarm.details["at"] == long_ago["at"]
    assert "over already" in alarm.summary


def test_a_use_of_a_grant_taken_back_since_raises_the_alarm_by_the_hosts_report(team: Team) -> None:
    line = glass(team, "grant")
    named: dict[str, Any] = {**use(team, line, timedelta(minutes=5)), "break_glass": True}
    (grant,) = grants.page(team.instance, team.owner).items
    grants.take_back(team.instance, team.owner, grant.id)
    tell(team, last_used=[use(team, line, timedelta(hours=1))])
    assert alarms(team) == []
    tell(team, last_used=[named], sessions=[])
    (alarm,) = alarms(team)
    for words in ("alice", "as deploy", "203.0.113.7", "taken away before this was told", "over already"):
        assert words in alarm.summary
    tell(team, last_used=[named])
    assert len(alarms(team)) == 1
    # Also with nothing of the key left here, and from a session alone.
    gone = parse(fresh_line()).fingerprint
    tell(team, sessions=[{**session("8-801", gone, started_at=moment(team)), "break_glass": True}])
    assert gone in alarms(team)[-1].summary


def test_alarms_of_a_host_without_end_are_bounded_and_counted(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(break_glass, "MAX_PER_HOUR", 3)
    for _ in range(3):
        tell(team, last_used=[{**use(team, fresh_line()), "break_glass": True} for _ in range(2)])
    assert len(alarms(team)) == 4
    assert "more than 3 times within an hour" in alarms(team)[-1].summary
    later = team.instance.now() + timedelta(hours=2)
    after = replace(team, instance=replace(team.instance, now=lambda: later))
    tell(after, last_used=[{**use(after, fresh_line()), "break_glass": True}])
    assert len(alarms(team)) == 5


def test_a_report_of_sessions_alone_or_without_an_account_raises_the_alarm_too(team: Team) -> None:
    line = glass(team, "credential")
    reported = use(team, line)
    del reported["user"]
    tell(team, last_used=[reported])
    other = fresh_line()
    terms: dict[str, Any] = {"label": "second", "username": "deploy", "public_key": other, "break_glass": True}
    credentials.add(team.instance, team.owner, team.server.id, **terms)
    tell(team, sessions=[session("8-800", parse(other).fingerprint, started_at=moment(team))])
    assert [alarm.details["username"] for alarm in alarms(team)] == ["deploy", "deploy"]


def test_other_keys_and_other_accounts_raise_no_alarm(team: Team) -> None:
    line = glass(team, "credential")
    usual = fresh_line()
    credentials.add(team.instance, team.owner, team.server.id, label="usual", username="deploy", public_key=usual)
    tell(team, last_used=[use(team, usual), use(team, line, user="root"), use(team, fresh_line())])
    assert alarms(team) == []


def test_the_offline_policy_drops_all_but_keys_to_break_glass_with(team: Team) -> None:
    line, usual = glass(team, "credential"), fresh_line()
    credentials.add(team.instance, team.owner, team.server.id, label="usual", username="deploy", public_key=usual)
    for then in ("drop-all", "drop-temporary"):
        modes.set_offline_policy(
            team.instance, team.owner, after_seconds=3600, then=then, server_id=team.server.id, tag=None
        )
        signed = documents.signed(team.instance, team.server.id)
        assert signed is not None
        document = host_document.decode(signed.text)
        kept = as_offline(document, 4000.0).users
        fingerprints = {parse(entry.public_key).fingerprint for entries in kept.values() for entry in entries}
        assert parse(line).fingerprint in fingerprints
        assert (parse(usual).fingerprint in fingerprints) is (then == "drop-temporary")
