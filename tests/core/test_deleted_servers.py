"""A deleted server is gone at once, and its host gets its last document until it obeys; on both databases."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import update

from keyrack.core.audit import events
from keyrack.core.hosts import (
    database_rollback,
    deleted_servers,
    documents,
    enrolment,
    reports,
    server_list,
    servers,
    undecided_keys,
)
from keyrack.core.keys import credentials, grants, receipts, revocation, user_keys
from keyrack.errors import Kind, Refusal
from keyrack.protocol import host_document
from keyrack.ssh.public_key import parse
from keyrack.store import tables
from tests.core.conftest import Team, make_team
from tests.core.keys_for_tests import fresh_line
from tests.core.test_unmanaged_keys import entry


def enrol(team: Team) -> str:
    """Enrol a host as the team's server; its secret."""
    token = servers.invite(team.instance, team.owner, team.server.id)
    return enrolment.enrol(team.instance, token, {}, address="192.0.2.1").secret


def last(team: Team) -> dict[str, Any]:
    """The document that the server's host gets now."""
    signed = documents.signed(team.instance, team.server.id)
    assert signed is not None
    host_document.decode(signed.text)
    found: dict[str, Any] = json.loads(signed.text)
    return found


def report(team: Team, secret: str, **reported: Any) -> None:
    """Report as the host with this secret."""
    (server,) = enrolment.authenticate_together(team.instance, [(secret, "192.0.2.1")])
    assert not isinstance(server, Exception)
    reports.ingest(team.instance, server, reported)


def delete(team: Team) -> None:
    """Delete the team's server."""
    servers.delete(team.instance, team.owner, team.server.id)


def test_the_last_document_opens_nothing_and_refuses_every_key(team: Team) -> None:
    lines = [fresh_line() for _ in range(4)]
    secret = enrol(team)
    credentials.add(team.instance, team.owner, team.server.id, label="a", username="deploy", public_key=lines[0])
    gone = credentials.add(team.instance, team.owner, team.server.id, label="b", username="deploy", public_key=lines[1])
    credentials.delete(team.instance, team.owner, team.server.id, gone.id)
    user_keys.add(team.instance, team.member, title="one", public_key=lines[2])
    grants.give(team.instance, team.owner, user_id=team.member_user.id, tag="web", system_user="deploy")
    credentials.add(team.instance, team.owner, team.server.id, label="c", username="root", public_key=lines[3])
    report(team, secret, keys_found=[entry(lines[3])])
    revocation.revoke_everywhere(team.instance, team.owner, parse(lines[3]).fingerprint)
    before = last(team)

    delete(team)
    with pytest.raises(Refusal) as refused:
        servers.get(team.instance, team.owner, team.server.id)
    assert refused.value.kind is Kind.MISSING
    assert server_list.find(team.instance, team.owner).items == ()
    document = last(team)
    assert document["deleted"] is True
    assert document["users"] == {}
    assert document["revision"] > before["revision"]
    assert sorted(document["revoked"]) == sorted(parse(line).canonical for line in lines)
    # The host's own files count again; what was revoked everywhere must not come back in one of them.
    assert document["mode"] == "adopt"
    assert [one["fingerprint"] for one in document["take_away"]] == [parse(lines[3]).fingerprint]
    # The name is free.
    servers.create(team.instance, team.owner, name=team.server.name, address="192.0.2.10")


def test_a_deleted_servers_host_gets_its_last_document_until_it_acknowledges_it(team: Team) -> None:
    line = fresh_line()
    secret = enrol(team)
    credentials.add(team.instance, team.owner, team.server.id, label="a", username="deploy", public_key=line)
    delete(team)
    event = next(one for one in events.find(team.instance, team.owner, limit=5).items if "Deleted" in one.summary)
    revision = last(team)["revision"]
    assert (
        database_rollback.judge_revision(team.instance, team.server.id, revision, "")
        is database_rollback.HostRevision.CURRENT
    )
    assert (
        database_rollback.judge_revision(team.instance, team.server.id, revision - 1, "")
        is database_rollback.HostRevision.NEWER
    )
    report(team, secret, revision=revision - 1, state="applied")
    report(team, secret, revision=revision - 1, state="failed", problems=["the disk is full"])
    report(team, secret, sessions=[])
    (waiting,) = deleted_servers.find(team.instance, team.owner).items
    assert waiting.acknowledged_at is None
    assert receipts.of_event(team.instance, team.owner, event.id).words.endswith("not yet on web-1 (deleted)")
    assert not receipts.of_key(team.instance, team.owner, parse(line).fingerprint).done
    report(team, secret, revision=revision, state="applied")
    report(team, secret, revision=revision, state="applied")
    (obeyed,) = deleted_servers.find(team.instance, team.owner).items
    assert obeyed.acknowledged_at is not None
    assert receipts.of_event(team.instance, team.owner, event.id).done
    assert receipts.of_key(team.instance, team.owner, parse(line).fingerprint).done
    summaries = [one.summary for one in events.find(team.instance, team.owner, limit=5).items]
    assert sum("obeys" in summary for summary in summaries) == 1
    assert deleted_servers.find(team.instance, make_team(team.instance, "umbrella").owner).items == ()


def test_a_server_without_a_host_is_just_gone(team: Team) -> None:
    delete(team)
    assert deleted_servers.find(team.instance, team.owner).items == ()
    assert documents.signed(team.instance, team.server.id) is None
    assert database_rollback.judge_revision(team.instance, team.server.id, 1, "") is database_rollback.HostRevision.GONE


def test_a_deleted_servers_note_changed_in_the_database_is_refused(team: Team) -> None:
    enrol(team)
    delete(team)
    team.instance.database.write(
        lambda connection: connection.execute(update(tables.deleted_servers).values(host="h_another"))
    )
    with pytest.raises(Refusal) as refused:
        documents.signed(team.instance, team.server.id)
    assert refused.value.code == "seal-broken"


def test_an_unknown_agent_is_only_told_that_it_is_unknown(team: Team) -> None:
    (answer,) = enrolment.authenticate_together(team.instance, [("a secret of another database", "192.0.2.1")])
    assert isinstance(answer, Refusal)
    assert answer.kind is Kind.UNAUTHENTICATED
    assert undecided_keys.counts(team.instance, team.owner) == {}


def test_a_deleted_servers_host_does_not_fill_the_log(team: Team) -> None:
    secret = enrol(team)
    delete(team)
    revision = last(team)["revision"]
    for number in range(30):
        report(team, secret, revision=revision, state="x" * 100_000)
        report(team, secret, revision=revision, state="failed", problems=["the disk is full"])
        report(team, secret, revision=revision, state="failed", problems=[f"{number}", *["y" * 500] * 20])
    words = [one.summary for one in events.find(team.instance, team.owner, limit=1000).items]
    assert max(map(len, words)) <= 1000
    assert not any("xxx" in one for one in words)
    assert sum("the disk is full" in one for one in words) == 10
