"""A revocation is delivered until acknowledged, and one can ask how far it is; on both databases."""

from __future__ import annotations

from datetime import timedelta

import pytest

from keyrack.core.audit import events, overview
from keyrack.core.hosts import documents, enrolment, reports, servers
from keyrack.core.hosts.system_users import create
from keyrack.core.keys import credentials, freezes, grants, receipts, revocation, user_keys
from keyrack.core.people import groups, offboarding, users
from keyrack.errors import Kind, Refusal
from keyrack.model import EventFilter, Server
from keyrack.ssh.public_key import parse
from tests.core.conftest import Team, make_team
from tests.core.keys_for_tests import fresh_line


def more_servers(team: Team, count: int) -> list[Server]:
    """New servers with an account deploy."""
    made = []
    for number in range(count):
        server = servers.create(team.instance, team.owner, name=f"more-{number}", address="192.0.2.20")
        create(team.instance, team.owner, server.id, username="deploy")
        made.append(server)
    return made


def enrol(team: Team, *found: Server) -> None:
    """Give servers a host."""
    for server in found:
        enrolment.enrol(team.instance, servers.invite(team.instance, team.owner, server.id), {}, address="192.0.2.20")


def obey(team: Team, server: Server) -> None:
    """The host reports that it obeys its newest document."""
    signed = documents.signed(team.instance, server.id)
    assert signed is not None
    reports.ingest(team.instance, server, {"revision": signed.revision, "state": "applied"})


def put(team: Team, server: Server, label: str, line: str) -> None:
    """Put a key on deploy of a server."""
    credentials.add(team.instance, team.owner, server.id, label=label, username="deploy", public_key=line)


def test_a_key_is_revoked_everywhere_in_one_action(team: Team) -> None:
    line = fresh_line()
    fingerprint = parse(line).fingerprint
    others = more_servers(team, 3)
    for server in (team.server, others[0]):
        put(team, server, "a", line)
    user_keys.add(team.instance, team.member, title="one", public_key=line)
    grants.give(team.instance, team.owner, user_id=team.member_user.id, server_id=others[1].id, system_user="deploy")
    strangers = make_team(team.instance, "umbrella")
    credentials.add(team.instance, strangers.owner, strangers.server.id, label="a", username="deploy", public_key=line)
    revoked = revocation.revoke_everywhere(team.instance, team.owner, fingerprint)
    assert (revoked.credentials, revoked.user_keys) == (2, 1)
    assert set(revoked.revisions) == {team.server.id, others[0].id, others[1].id}
    for server_id in revoked.revisions:
        signed = documents.signed(team.instance, server_id)
        assert signed is not None
        assert signed.text.count(parse(line).canonical) == 1
        assert f'"revoked":["{parse(line).canonical}"]' in signed.text
    untouched = documents.signed(team.instance, strangers.server.id)
    assert untouched is not None
    assert '"revoked":[]' in untouched.text
    assert parse(line).canonical in untouched.text
    summary = events.find(team.instance, team.owner, limit=1).items[0]
    assert "2 keys on accounts and 1 key of a person, on 3 hosts" in summary.summary
    again = revocation.revoke_everywhere(team.instance, team.owner, fingerprint)
    assert (again.credentials, again.user_keys, again.revisions) == (0, 0, revoked.revisions)
    assert events.find(team.instance, team.owner, limit=1).items[0].id == summary.id
    with pytest.raises(Refusal) as refused:
        revocation.revoke_everywhere(team.instance, team.owner, parse(fresh_line()).fingerprint)
    assert refused.value.kind is Kind.MISSING


def test_members_cannot_revoke_everywhere(team: Team) -> None:
    with pytest.raises(Refusal) as refused:
        revocation.revoke_everywhere(team.instance, team.member, parse(fresh_line()).fingerprint)
    assert refused.value.kind is Kind.FORBIDDEN


def test_receipts_tell_from_which_servers_a_key_is_gone(team: Team) -> None:
    line = fresh_line()
    fingerprint = parse(line).fingerprint
    others = more_servers(team, 4)
    everywhere = [team.server, *others]
    enrol(team, *everywhere)
    for server in everywhere:
        put(team, server, "a", line)
        obey(team, server)
    revocation.revoke_everywhere(team.instance, team.owner, fingerprint)
    for server in everywhere[:2]:
        obey(team, server)
    # A report of an older revision is no receipt.
    reports.ingest(team.instance, others[1], {"revision": 1, "state": "applied"})
    reports.ingest(team.instance, others[2], {"revision": 1, "state": "failed", "problems": ["the disk is full"]})
    found = receipts.of_key(team.instance, team.owner, fingerprint)
    assert found.words == "done on 2 of 5 servers; not yet on more-1, more-2, more-3"
    event = events.find(team.instance, team.owner, EventFilter(search="everywhere:"), limit=1).items[0]
    of_event = receipts.of_event(team.instance, team.owner, event.id)
    assert of_event.words == found.words
    assert not any(receipt.at_latest for receipt in of_event.of)
    at = {receipt.server_id: receipt.acknowledged_at for receipt in found.of}
    for server in everywhere:
        put(team, server, "b", fresh_line())
        obey(team, server)
    # An event's time is that of the newest revision, and is shown as the latest that it can be.
    assert all(receipt.at_latest for receipt in receipts.of_event(team.instance, team.owner, event.id).of)
    later = receipts.of_key(team.instance, team.owner, fingerprint)
    assert later.done
    assert not any(receipt.at_latest for receipt in later.of)
    assert later.words == "done on 5 of 5 servers"
    # The time is that of the first word, not of the last.
    assert {receipt.server_id: receipt.acknowledged_at for receipt in later.of}[team.server.id] == at[team.server.id]


def test_an_event_without_hosts_is_not_reported_as_missing(team: Team) -> None:
    groups.put(team.instance, team.owner, "ops", [])
    event = events.find(team.instance, team.owner, EventFilter(), limit=1).items[0]
    with pytest.raises(Refusal, match="This event changed nothing that a host obeys"):
        receipts.of_event(team.instance, team.owner, event.id)
    with pytest.raises(Refusal, match="There is no such event"):
        receipts.of_event(team.instance, team.owner, event.id + 1000)


def test_a_leaver_is_gone_with_receipts(team: Team) -> None:
    line = fresh_line()
    user_keys.add(team.instance, team.member, title="one", public_key=line)
    grants.give(team.instance, team.owner, user_id=team.member_user.id, tag="web", system_user="deploy")
    enrol(team, team.server)
    obey(team, team.server)
    users.change(team.instance, team.owner, team.member_user.id, enabled=False)
    fingerprint = parse(line).fingerprint
    assert not receipts.of_key(team.instance, team.owner, fingerprint).done
    obey(team, team.server)
    assert receipts.of_key(team.instance, team.owner, fingerprint).done


def test_a_server_without_a_host_is_not_waited_for_anywhere(team: Team) -> None:
    """Nobody was ever enrolled as it, so nobody will ever say that it obeys: a revocation, a freeze, an event, and a
    leaver all say so alike, and wait again once a host comes.
    """
    instance, owner, line = team.instance, team.owner, fresh_line()
    user_keys.add(instance, team.member, title="one", public_key=line)
    grants.give(instance, owner, user_id=team.member_user.id, tag="web", system_user="deploy")
    (with_host,) = more_servers(team, 1)
    enrol(team, with_host)
    for server in (team.server, with_host):
        put(team, server, "a", line)
    frozen = freezes.freeze(instance, owner, user="alice").freeze
    removed = offboarding.offboard(instance, owner, "alice")
    assert frozen is not None
    gone = parse(line).fingerprint
    event = events.find(instance, owner, limit=1).items[0]

    def found() -> set[str]:
        return {
            freezes.get(instance, owner, frozen.id).words,
            offboarding.get(instance, owner, removed.id).words,
            receipts.of_key(instance, owner, gone).words,
            receipts.of_event(instance, owner, event.id).words,
        }

    assert found() == {"done on 0 of 1 server; not yet on more-0; 1 has no host"}
    assert [row.hosts for row in overview.get(instance, owner).unacknowledged] == [1]
    obey(team, with_host)
    assert found() == {"done on 1 of 1 server; 1 has no host"}
    assert offboarding.get(instance, owner, removed.id).done
    assert events.find(instance, owner, limit=1).items[0].summary == "Every host obeys that alice is gone"
    assert overview.get(instance, owner).unacknowledged == []
    enrol(team, team.server)
    assert found() == {"done on 1 of 2 servers; not yet on web-1"}
    obey(team, team.server)
    assert found() == {"done on 2 of 2 servers"}


def test_receipts_are_of_the_own_workspace(team: Team) -> None:
    strangers = make_team(team.instance, "umbrella")
    line = fresh_line()
    put(team, team.server, "a", line)
    revocation.revoke_everywhere(team.instance, team.owner, parse(line).fingerprint)
    event = events.find(team.instance, team.owner, EventFilter(search="everywhere:"), limit=1).items[0]
    for ask in (
        lambda: receipts.of_key(team.instance, strangers.owner, parse(line).fingerprint),
        lambda: receipts.of_event(team.instance, strangers.owner, event.id),
        lambda: revocation.revoke_everywhere(team.instance, strangers.owner, parse(line).fingerprint),
    ):
        with pytest.raises(Refusal) as refused:
            ask()
        assert refused.value.kind is Kind.MISSING


def test_an_ended_credential_is_revoked_too(team: Team) -> None:
    line = fresh_line()
    end = team.instance.now() + timedelta(days=1)
    credentials.add(
        team.instance, team.owner, team.server.id, label="t", username="deploy", public_key=line, expires_at=end
    )
    assert revocation.revoke_everywhere(team.instance, team.owner, parse(line).fingerprint).credentials == 1
