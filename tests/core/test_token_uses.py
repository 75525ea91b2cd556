"""When a token was last used is noted by the clock of now."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from keyrack.core.people import tokens
from tests.core.conftest import Team


def test_a_use_that_was_noted_in_the_future_is_noted_anew(team: Team) -> None:
    secret, number = tokens.create(team.instance, team.owner, team.member_user, name="laptop", scopes=("*",))
    ahead = replace(team.instance, now=lambda: team.instance.now() + timedelta(days=365))
    tokens.authenticate(ahead, secret, address="192.0.2.1", channel="test")
    tokens.authenticate(team.instance, secret, address="192.0.2.1", channel="test")
    used = tokens.get(team.instance, team.owner, number).token.last_used_at
    assert used is not None
    assert used <= team.instance.now()
