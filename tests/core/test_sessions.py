"""Open logins on both databases: what a host tells replaces what it told, and an end is asked for once and kept."""

from __future__ import annotations

import json

import pytest

from keyrack.core.audit import events
from keyrack.core.hosts import documents, reports, servers, sessions
from keyrack.core.keys import credentials
from keyrack.errors import Kind, Refusal
from tests.core.conftest import Team
from tests.core.keys_for_tests import fresh_line


def to_end(team: Team) -> list[str]:
    """The sessions that the host's document asks to end."""
    signed = documents.signed(team.instance, team.server.id)
    assert signed is not None
    names: list[str] = json.loads(signed.text).get("end_sessions", [])
    return names


def test_sessions_that_a_host_reports_are_listed_and_one_is_ended(team: Team) -> None:
    key = credentials.add(
        team.instance, team.owner, team.server.id, label="laptop", username="deploy", public_key=fresh_line()
    )

    def tell(*names: str) -> None:
        now = servers.get(team.instance, team.owner, team.server.id)
        entries = [
            {
                "id": name,
                "user": "deploy",
                "address": "2001:db8::9",
                "fingerprint": key.fingerprint,
                "started_at": "2024-07-23T05:04:20Z",
            }
            for name in names
        ]
        reports.ingest(team.instance, now, {"revision": now.revision, "state": "applied", "sessions": entries})

    tell("a", "b")
    first, second = sessions.find(team.instance, team.owner, team.server.id).items
    assert (first.label, first.address, first.ending) == ("laptop", "2001:db8::9", False)
    revision = servers.get(team.instance, team.owner, team.server.id).revision
    assert sessions.end(team.instance, team.owner, team.server.id, first.id).ending
    assert servers.get(team.instance, team.owner, team.server.id).revision == revision + 1
    assert to_end(team) == ["a"]
    newest = events.find(team.instance, team.owner, limit=1).items[0]
    assert newest.summary == "Ended the session of deploy from 2001:db8::9 on web-1"
    tell("b", "c")
    assert to_end(team) == []
    left = sessions.find(team.instance, team.owner, team.server.id)
    assert (left.total, left.items[0]) == (2, second)
    assert sessions.find(team.instance, team.owner, team.server.id, offset=1, limit=1).items[0].host_session == "c"
    with pytest.raises(Refusal) as refused:
        sessions.end(team.instance, team.owner, team.server.id, first.id)
    assert refused.value.kind is Kind.MISSING
    with pytest.raises(Refusal) as refused:
        sessions.find(team.instance, team.member, team.server.id)
    assert refused.value.kind is Kind.FORBIDDEN
