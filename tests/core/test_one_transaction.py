"""A change, its event and the revision commit together or not at all; refusals leave an event too (invariant 3)."""

from __future__ import annotations

from typing import Any

import pytest

from keyrack.core.audit import events
from keyrack.core.audit.refusals import RefusedAttempt
from keyrack.core.hosts import servers
from keyrack.core.keys import credentials
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal
from keyrack.store.hosts import servers as server_rows
from tests.core.conftest import Team
from tests.core.keys_for_tests import fresh_line
from tests.store.no_threads import no_threads


def latest(team: Team) -> Any:
    """The newest event of the workspace."""
    return events.find(team.instance, team.owner, limit=1).items[0]


def revision(team: Team) -> int:
    """What the server must obey now."""
    return servers.get(team.instance, team.owner, team.server.id).revision


def test_an_add_leaves_key_event_and_revision(team: Team) -> None:
    before = revision(team)
    added = credentials.add(
        team.instance, team.owner, team.server.id, label="laptop", username="deploy", public_key=fresh_line("me@home")
    )
    assert revision(team) == before + 1 == added.revision
    event = latest(team)
    assert (event.action, event.outcome, event.target_id) == ("credentials:write", "done", added.id)
    assert (event.actor_name, event.address, event.server_id) == ("olga", "203.0.113.9", team.server.id)
    assert added.fingerprint in event.summary


def test_a_command_that_fails_late_leaves_nothing(team: Team) -> None:
    before, event = revision(team), latest(team)
    attempt = Attempt(team.instance, team.owner, "servers:write", "fail", target_kind="server")

    def change(work: Work) -> None:
        work.bump_revision(team.server.id)
        server_rows.change(work.connection, team.server.id, {"name": "changed"})
        work.record("Changed a server")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), attempt:
        attempt.write(change)
    assert (revision(team), latest(team)) == (before, event)
    assert servers.get(team.instance, team.owner, team.server.id).name == "web-1"


def test_a_change_without_an_event_is_refused(team: Team) -> None:
    attempt = Attempt(team.instance, team.owner, "servers:write", "hide", target_kind="server")

    def change(work: Work) -> None:
        server_rows.change(work.connection, team.server.id, {"name": "changed"})

    with pytest.raises(RuntimeError, match="left no event"), attempt:
        attempt.write(change)
    assert servers.get(team.instance, team.owner, team.server.id).name == "web-1"


def test_a_command_may_say_why_it_leaves_no_event(team: Team) -> None:
    attempt = Attempt(team.instance, team.owner, "servers:write", "note something", target_kind="server")
    before = latest(team)
    with attempt:
        attempt.write(lambda work: work.no_event("nothing changed"))
    assert latest(team) == before
    with pytest.raises(ValueError, match="say why"), attempt:
        attempt.write(lambda work: work.no_event(""))


def test_a_refusal_is_on_record_without_what_was_sent(team: Team) -> None:
    with pytest.raises(Refusal) as refused:
        credentials.add(
            team.instance,
            team.member,
            team.server.id,
            label="a very telling label",
            username="deploy",
            public_key=fresh_line(),
        )
    assert refused.value.kind is Kind.FORBIDDEN
    event = latest(team)
    assert (event.outcome, event.reason, event.actor_name) == ("refused", "not-allowed", "alice")
    assert "telling" not in event.summary


def test_a_refusal_is_on_record_where_no_thread_could_be_started_for_it(team: Team) -> None:
    refused = RefusedAttempt(team.owner, "iam:sign-in", "sign-in-failed", "sign in", "user")
    with no_threads():
        team.instance.refusals.record(team.instance.database, refused, team.instance.now(), later=True)
    team.instance.refusals.write(team.instance.database)  # as the service does every few seconds
    event = latest(team)
    assert (event.outcome, event.reason) == ("refused", "sign-in-failed")


def test_a_taken_label_is_refused_and_frees_itself_at_its_end(team: Team) -> None:
    def add() -> None:
        credentials.add(
            team.instance, team.owner, team.server.id, label="laptop", username="deploy", public_key=fresh_line()
        )

    add()
    with pytest.raises(Refusal) as refused:
        add()
    assert (refused.value.kind, refused.value.field) == (Kind.TAKEN, "label")
