"""When a token was last used is noted by the clock of now, and nobody waits for it to be noted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import Connection

from keyrack.core.people import tokens
from keyrack.store.database import ON_POSTGRESQL
from tests.core.conftest import Team


def test_a_use_that_was_noted_in_the_future_is_noted_anew(team: Team) -> None:
    secret, number = tokens.create(team.instance, team.owner, team.member_user, name="laptop", scopes=("*",))
    ahead = replace(team.instance, now=lambda: team.instance.now() + timedelta(days=365))
    tokens.authenticate(ahead, secret, address="192.0.2.1", channel="test")
    tokens.authenticate(team.instance, secret, address="192.0.2.1", channel="test")
    used = last_use(team, number)
    assert used is not None
    assert used <= team.instance.now()


def test_the_first_use_of_a_token_does_not_wait_for_a_change_under_way(team: Team) -> None:
    """As many as may change something at once wait for a workspace's lock; the use is noted at the next call."""
    if team.instance.database.dialect == "sqlite":
        return  # there are no turns, as commands run one after another
    secret, number = tokens.create(team.instance, team.owner, team.member_user, name="laptop", scopes=("*",))
    answered = threading.Event()

    def ask() -> None:
        tokens.authenticate(team.instance, secret, address="192.0.2.1", channel="test")
        answered.set()

    with all_change_something(team):
        caller = threading.Thread(target=ask)
        caller.start()
        is_answered = answered.wait(10)
        assert last_use(team, number) is None
    caller.join()
    assert is_answered
    ask()
    assert last_use(team, number) is not None


def last_use(team: Team, number: int) -> datetime | None:
    """When a token was last used, as it is noted."""
    return tokens.get(team.instance, team.owner, number).token.last_used_at


@contextmanager
def all_change_something(team: Team) -> Iterator[None]:
    """Meanwhile one holds the lock of the workspace, and others wait for it with all connections that there are."""
    database, holds, let_go = team.instance.database, threading.Event(), threading.Event()

    def hold(_: Connection) -> None:
        holds.set()
        let_go.wait(60)

    def change() -> None:
        database.write(hold, workspace_lock=team.owner.workspace_id)

    threads = [threading.Thread(target=change) for _ in range(ON_POSTGRESQL.writers[0])]
    for thread in threads:
        thread.start()
    try:
        assert holds.wait(30)
        for _ in range(3000):
            if not database.can_write_now:
                break
            threading.Event().wait(0.01)
        yield
    finally:
        let_go.set()
        for thread in threads:
            thread.join()
