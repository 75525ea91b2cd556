"""Logs, queues and lists of differences that are long: what is asked of them is done a bounded piece at a time."""

from __future__ import annotations

from typing import Any

import pytest

from keyrack.core import cursors
from keyrack.core.audit import events, webhooks
from keyrack.core.hosts import resync, servers, system_users
from keyrack.core.keys import grants, user_keys
from keyrack.errors import Refusal
from keyrack.model import EventFilter
from keyrack.ssh.public_key import parse
from keyrack.store.audit import events as stored_events
from keyrack.store.audit import webhooks as stored
from keyrack.store.hosts import held_back
from tests.core.conftest import Team
from tests.core.keys_for_tests import fresh_line


def test_a_search_goes_on_where_it_stopped_and_finds_old_events(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    servers.create(team.instance, team.owner, name="needle", address="10.1.0.1")
    for number in range(9):
        servers.create(team.instance, team.owner, name=f"straw-{number}", address=f"10.1.1.{number}")
    monkeypatch.setattr(stored_events, "PAGE_SCAN_LIMIT", 4)
    first = events.find(team.instance, team.owner, EventFilter(search="NEEDLE"), cursor="", limit=2)
    assert first.items == ()
    assert first.after is not None
    pages = list(events.every(team.instance, team.owner, EventFilter(search="NEEDLE"), limit=2))
    assert ["needle" in one.summary for page in pages for one in page.items] == [True]
    assert len(pages) > 2
    filters = (
        EventFilter(person="nobody"),
        EventFilter(kind="sessions"),
        EventFilter(key=f"SHA256:{'A' * 43}"),
        EventFilter(kind="refused"),
    )
    for asked in filters:
        assert events.find(team.instance, team.owner, asked, cursor="", limit=2).after is not None
    # No event is missing and none comes twice, whatever a page holds.
    straws = [
        one.id
        for page in events.every(team.instance, team.owner, EventFilter(search="straw"), limit=3)
        for one in page.items
    ]
    assert len(straws) == 9
    assert straws == sorted(set(straws), reverse=True)


def test_the_events_of_a_host_include_those_of_its_tags(team: Team) -> None:
    instance, owner = team.instance, team.owner
    user_keys.add(instance, owner, title="laptop", public_key=fresh_line(), user_id=team.member_user.id)
    # A host whose number begins with the other's, and has another tag.
    others = [servers.create(instance, owner, name=f"db-{n}", address=f"10.1.1.{n}", tags=("db",)) for n in range(10)]
    other = next(one for one in others if str(one.id) == f"{team.server.id}0")
    system_users.create(instance, owner, other.id, username="deploy")
    begun = events.find(instance, owner, limit=1).items[0].id
    grants.give(instance, owner, user_id=team.member_user.id, tag="web", system_user="deploy")
    grants.give(instance, owner, user_id=team.member_user.id, tag="db", system_user="deploy")

    def said(server: int) -> list[str]:
        found = events.find(instance, owner, EventFilter(concerning=server), limit=50).items
        return [one.summary for one in found if one.id > begun]

    assert said(team.server.id) == ["Let alice log in as deploy on hosts with the tag web"]
    assert said(other.id) == ["Let alice log in as deploy on hosts with the tag db"]
    # What names the host itself is there too.
    assert "Created host web-1 (192.0.2.10)" in [
        one.summary for one in events.find(instance, owner, EventFilter(concerning=team.server.id), limit=50).items
    ]


def test_a_page_that_needs_no_search_is_full_whatever_the_log(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(9):
        servers.create(team.instance, team.owner, name=f"straw-{number}", address=f"10.1.1.{number}")
    monkeypatch.setattr(stored_events, "PAGE_SCAN_LIMIT", 2)
    first = events.find(team.instance, team.owner, cursor="", limit=5)
    assert len(first.items) == 5
    assert first.after is not None
    second = events.find(team.instance, team.owner, cursor=cursors.write(first.after), limit=5)
    assert [one.id for one in first.items][-1] == second.items[0].id + 1
    # By number all that match are counted, as ever.
    assert events.find(team.instance, team.owner, EventFilter(search="straw"), limit=5).total == 9


def test_a_deleted_webhook_is_gone_at_once_and_its_queue_little_by_little(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "CLEAR_BATCH_SIZE", 3)
    made = [webhooks.create(team.instance, team.owner, url=f"https://{at}.example.org/").webhook for at in "ab"]
    now = team.instance.now()
    for one in made:
        team.instance.database.write(lambda c, number=one.id: stored.enqueue(c, number, range(1, 11), now))  # type: ignore[misc]
    webhooks.delete(team.instance, team.owner, made[0].id)
    assert webhooks.find(team.instance, team.owner) == (made[1],)
    with pytest.raises(Refusal):
        webhooks.deliveries(team.instance, team.owner, made[0].id)
    assert {due.webhook.id for due in webhooks.claim(team.instance)} == {made[1].id}
    # Not in the transaction of the command, for which everybody would wait.
    kept = team.instance.database.read(lambda c: [len(stored.deliveries(c, one.id, None, 50)) for one in made])
    assert kept == [10, 10]
    webhooks.clear_deleted(team.instance)
    kept = team.instance.database.read(lambda c: [len(stored.deliveries(c, one.id, None, 50)) for one in made])
    assert kept == [0, 10]
    assert team.instance.database.read(stored.deleted) == []
    assert webhooks.find(team.instance, team.owner) == (made[1],)


def test_many_differences_come_by_pages_and_are_decided_on_together(team: Team) -> None:
    now = team.instance.now()
    lines = [fresh_line() for _ in range(8)]
    given: dict[str, Any] = {
        "kind": held_back.LINE,
        "username": "deploy",
        "options": [],
        "until": None,
        "name": "",
        "since": now,
    }
    rows = [
        {**given, "public_key": key.canonical, "fingerprint": key.fingerprint, "revision": 1, "decided_at": None}
        for key in map(parse, lines)
    ]
    team.instance.database.write(lambda c: held_back.replace_all(c, team.server.id, rows))
    shown, cursor = [], ""
    while True:
        page = resync.difference(team.instance, team.owner, team.server.id, cursor=cursor, limit=3)
        shown += [row.fingerprint for row in page.held]
        assert len(page.held) <= 3
        if page.next is None:
            break
        cursor = page.next
    assert shown == [row["fingerprint"] for row in rows]
    freed = shown[2]
    left = resync.decide(team.instance, team.owner, team.server.id, let_in=(freed,))
    assert [row.fingerprint for row in left.held] == [one for one in shown if one != freed]
    assert all(row.decided_at and row.sound for row in left.held)
    assert resync.decide(team.instance, team.owner, team.server.id, accept_database=True).held == ()
