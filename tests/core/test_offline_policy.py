"""What is said of an offline policy that somebody sets."""

from __future__ import annotations

from keyrack.core.audit import events
from keyrack.core.hosts import modes
from tests.core.conftest import Team


def test_the_event_of_an_offline_policy_says_what_was_set(team: Team) -> None:
    modes.set_offline_policy(team.instance, team.owner, after_seconds=3600, then="drop-all", server_id=team.server.id)
    event = events.find(team.instance, team.owner, limit=1).items[0]
    assert event.summary == "Set the offline policy of web-1: after 3600 seconds all keys are dropped"
