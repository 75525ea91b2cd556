"""The service's clock is set back: a host that is gone is not online until the time comes again, and nothing waits
for it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select

from keyrack.core import clock_check
from keyrack.core.audit import overview, webhooks
from keyrack.core.clock_check import ClockCheck
from keyrack.core.hosts import last_seen, server_list, servers
from keyrack.core.hosts.last_seen import LastSeen
from keyrack.core.instance import Instance
from keyrack.store.hosts import servers as server_rows
from keyrack.store.rows import inserted
from keyrack.store.tables import git_endpoints, webhook_deliveries
from keyrack.store.tables import webhooks as webhook_rows
from tests.core.conftest import Team

HOUR = timedelta(hours=1)


@dataclass
class Clock:
    """The time of day, and the clock that nobody sets, in seconds."""

    day: datetime
    steady: float = 1000.0

    def goes_on(self, seconds: float) -> None:
        self.day += timedelta(seconds=seconds)
        self.steady += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock(datetime.now(UTC).replace(microsecond=0) + HOUR)


@pytest.fixture
def ahead(team: Team, clock: Clock) -> Team:
    """A team whose service has a clock that is an hour ahead."""
    return replace(team, instance=replace(team.instance, now=lambda: clock.day))


def contact(instance: Instance, server_id: int) -> None:
    """A host is enrolled, and was just seen."""
    now = instance.now()
    instance.database.write(lambda connection: server_rows.change(connection, server_id, {"enrolled_at": now}))
    seen = LastSeen(clock=lambda: 0.0)
    seen.saw(server_id)
    assert seen.write(instance) == 1


def test_a_host_that_is_gone_is_not_online_until_the_time_comes_again(ahead: Team, clock: Clock) -> None:
    check = ClockCheck(clock=lambda: clock.steady)
    assert check.go_on(ahead.instance)  # what was before a start is not known
    contact(ahead.instance, ahead.server.id)
    clock.goes_on(5)
    assert not check.go_on(ahead.instance)
    clock.day -= HOUR
    clock.goes_on(5)
    assert check.go_on(ahead.instance)
    assert last_seen.is_online(servers.get(ahead.instance, ahead.owner, ahead.server.id), ahead.instance.now())
    clock.goes_on(last_seen.ONLINE.total_seconds() + 1)
    assert not check.go_on(ahead.instance)
    assert not last_seen.is_online(servers.get(ahead.instance, ahead.owner, ahead.server.id), ahead.instance.now())
    page = server_list.find(ahead.instance, ahead.owner, state=server_list.SILENT, limit=10)
    assert [server.id for server in page.items] == [ahead.server.id]
    assert overview.get(ahead.instance, ahead.owner).silent


def test_the_clock_is_checked_after_a_start_too(ahead: Team, clock: Clock) -> None:
    contact(ahead.instance, ahead.server.id)
    clock.day -= HOUR
    assert ClockCheck(clock=lambda: 5.0).go_on(ahead.instance)
    clock.goes_on(last_seen.ONLINE.total_seconds() + 1)
    assert not last_seen.is_online(servers.get(ahead.instance, ahead.owner, ahead.server.id), ahead.instance.now())


def test_deliveries_due_before_the_clock_was_set_back_are_sent_at_once(ahead: Team, clock: Clock) -> None:
    check = ClockCheck(clock=lambda: clock.steady)
    check.go_on(ahead.instance)

    def queue(connection: Connection) -> None:
        now, soon = clock.day, clock.day + timedelta(seconds=5)
        hook: dict[str, Any] = {"url": "https://a.example", "encrypted_secret": b"", "level": "info", "actions": ["*"]}
        hook |= {"workspace_id": ahead.owner.workspace_id, "active": True, "cursor": 0, "created_by": "olga"}
        number = inserted(connection, webhook_rows, {"created_at": now, **hook})
        kept = {"webhook_id": number, "event_id": None, "state": "waiting", "attempts": 1, "words": ""}
        connection.execute(insert(webhook_deliveries).values(created_at=now, next_at=soon, **kept))
        connection.execute(insert(git_endpoints).values(name="git-1", seen_at=now))

    ahead.instance.database.write(queue)
    clock.day -= HOUR
    clock.goes_on(6)
    assert check.go_on(ahead.instance)

    def kept(connection: Connection) -> tuple[datetime, datetime]:
        return (
            connection.execute(select(webhook_deliveries.c.next_at)).scalar_one(),
            connection.execute(select(git_endpoints.c.seen_at)).scalar_one(),
        )

    assert ahead.instance.database.read(kept) == (clock.day, clock.day)


def test_a_clock_that_is_kept_right_moves_nothing(ahead: Team, clock: Clock) -> None:
    check = ClockCheck(clock=lambda: clock.steady)
    check.go_on(ahead.instance)
    for step in (-clock_check.LEAST_SECONDS + 1, -0.5, 0.5, 3600):
        clock.day += timedelta(seconds=step)
        clock.goes_on(5)
        assert not check.go_on(ahead.instance)
    assert webhooks.LEASE > last_seen.ONLINE  # a delivery that another process sends now is not sent twice
