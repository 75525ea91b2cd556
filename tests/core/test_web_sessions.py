"""A browser's session that stands idle ends, whatever others write into the database; on both databases."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, select, update

from keyrack.core.instance import Instance
from keyrack.core.people import web_sessions
from keyrack.core.work import Attempt
from keyrack.errors import Refusal
from keyrack.store import tables
from keyrack.store.sealing import sealed
from tests.core.all_damaged_rows import damaged
from tests.core.conftest import Team

HELD = tables.web_sessions


def signed_in(team: Team) -> str:
    """The secret of a new session of the member."""
    with Attempt(team.instance, team.owner, "credentials:read", "sign in", target_kind="session") as attempt:
        made = attempt.write(
            lambda work: web_sessions.begin(work, team.member_user, method="password", user_agent="a browser")
        )
    return made.secret


def after(team: Team, passed: timedelta) -> Instance:
    """The instance, some time later."""
    return replace(team.instance, now=lambda: team.instance.now() + passed)


def is_in(instance: Instance, secret: str) -> bool:
    """Whether the session is in force."""
    try:
        web_sessions.find(instance, secret, address="203.0.113.9")
    except Refusal:
        return False
    return True


def test_a_session_in_use_goes_on_and_an_idle_one_ends(team: Team) -> None:
    secret = signed_in(team)
    idle = timedelta(minutes=team.instance.settings.session_idle_minutes)
    for number in range(1, 4):
        assert is_in(after(team, idle * 0.9 * number), secret)
    assert damaged(team.instance, team.owner) == []
    assert not is_in(after(team, idle * 4), secret)


@pytest.mark.parametrize("column", ["used_at", "seen_at", "both", "neither", "put back"])
def test_an_idle_session_is_not_prolonged_by_changing_the_database(team: Team, column: str) -> None:
    secret = signed_in(team)
    idle = timedelta(minutes=team.instance.settings.session_idle_minutes)
    row = team.instance.database.read(lambda connection: dict(connection.execute(select(HELD)).mappings().one()))
    assert is_in(after(team, idle * 0.5), secret)
    late = after(team, idle * 1.6)
    at = late.now()
    changes: dict[str, dict[str, Any]] = {
        "used_at": {"used_at": at},
        "seen_at": {"seen_at": at},
        "both": {"used_at": at, "seen_at": at},
        "neither": {"used_at": None, "seen_at": at},
        "put back": {**row, "seen_at": at},
    }
    team.instance.database.write(lambda connection: connection.execute(update(HELD).values(**changes[column])))
    assert not is_in(late, secret)


def test_a_session_from_before_is_in_force_and_ends_idle(team: Team) -> None:
    """It has no time under its seal yet, and gets one when it is used."""
    secret = signed_in(team)
    idle = timedelta(minutes=team.instance.settings.session_idle_minutes)

    def as_before(connection: Connection) -> None:
        sealed.change(connection, HELD, HELD.c.id > 0, values={"used_at": None})

    team.instance.database.write(as_before)
    assert is_in(after(team, idle * 0.9), secret)
    assert is_in(after(team, idle * 1.5), secret)
    assert not is_in(after(team, idle * 3), secret)
