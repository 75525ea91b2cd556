"""What hosts tell about sessions and uses is kept whole, and believed for their own workspace only."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from keyrack.core.hosts import documents, reports
from keyrack.core.hosts.last_seen import LastSeen, is_online
from keyrack.core.keys import credentials
from keyrack.errors import Kind, Refusal
from keyrack.protocol import host_document
from keyrack.ssh.public_key import parse
from keyrack.store import tables
from keyrack.store.hosts import servers
from keyrack.store.keys import uses
from keyrack.store.keys.uses import Use
from tests.core.conftest import Team, make_team
from tests.core.keys_for_tests import fresh_line
from tests.core.test_unmanaged_keys import entry


def last_uses(team: Team, fingerprint: str) -> tuple[Use, ...]:
    """When a key was last used, as the team's workspace sees it."""
    workspace = team.owner.workspace_id
    return team.instance.database.read(lambda c: uses.of_keys(c, workspace, [fingerprint])).get(fingerprint, ())


def session(name: str, fingerprint: str = "", **more: str) -> dict[str, str]:
    """A session as an agent tells it."""
    return {
        "id": name,
        "user": "deploy",
        "address": "203.0.113.7",
        "fingerprint": fingerprint,
        "started_at": "2026-01-02T03:04:05Z",
        **more,
    }


def tell(team: Team, **fields: Any) -> None:
    """A report of the team's server."""
    reports.ingest(team.instance, team.server, fields)


def kept(team: Team) -> dict[str, Mapping[str, Any]]:
    """The rows of the server's sessions."""
    statement = select(tables.sessions).where(tables.sessions.c.server_id == team.server.id)
    rows = team.instance.database.read(lambda connection: connection.execute(statement).all())
    return {row.host_session: dict(row._mapping) for row in rows}


def test_a_report_of_sessions_replaces_the_one_before(team: Team) -> None:
    tell(team, sessions=[session("1-100"), session("2-200")])
    first = kept(team)
    tell(team, sessions=[session("2-200"), session("3-300", parse(fresh_line()).fingerprint)])
    assert kept(team).keys() == {"2-200", "3-300"}
    # A session keeps its number as long as it lives.
    assert kept(team)["2-200"]["id"] == first["2-200"]["id"]
    tell(team, agent_version="9")
    assert len(kept(team)) == 2
    tell(team, sessions=[])
    assert not kept(team)


def test_a_report_whose_sessions_are_no_list_changes_nothing(team: Team) -> None:
    tell(team, sessions=[session("1-100")])
    with pytest.raises(Refusal) as refused:
        tell(team, sessions="many")
    assert refused.value.kind is Kind.INVALID
    assert kept(team).keys() == {"1-100"}


@pytest.mark.parametrize("wrong", [True, -1, 1.5, 10**400, "x", [], [1], {"": [1]}])
def test_a_field_of_another_type_is_no_fault(team: Team, wrong: object) -> None:
    """Each of the fields of a report, with all others as they should be: taken or refused, and a refusal says so."""
    line = fresh_line()
    used = {"fingerprint": parse(line).fingerprint, "at": "2026-01-02T03:04:05Z", "address": "203.0.113.7", "user": "a"}
    facts = {
        "sshd": {"UseDNS": "no"},
        "accounts": {"deploy": {"exists": True, "refused": "x", "deployment_key": line}},
        "logins": {"deploy": {"why": "x", "keys": {used["fingerprint"]: "y"}}},
        "plan": {"revision": 1, "sections": {"a": ["b"]}},
        "writers": ["w"],
        "ssh_port": 22,
        "enforcement": "enforce",
    }
    report = {
        "revision": 0,
        "lineage": "",
        "state": "applied",
        "problems": ["p"],
        "machine": {"kernel": "x", "load": 0.1},
        "facts": facts,
        "keys_found": [entry(line)],
        "keys_cut": [{"username": "deploy", "path": "/x", "why": "y"}],
        "host_keys": {"port": 22, "keys": [line]},
        "sessions": [{**session("1-100"), "break_glass": True}],
        "last_used": [used],
        "logins": {"batch": "0123456789abcdef", "entries": [used], "more": 1, "anybodys": True},
    }
    for name in report:
        with suppress(Refusal):
            tell(team, **{**report, name: wrong})
    for name in facts:
        with suppress(Refusal):
            tell(team, **{**report, "facts": {**facts, name: wrong}})


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": "1"},
        session("../1"),
        session("1", address="UNKNOWN"),
        session("1", address="fe80::1%" + "e" * 100),
        session("1", fingerprint="SHA256:x"),
        session("1", started_at="yesterday"),
        session("1", user=" "),
    ],
)
def test_an_entry_that_cannot_be_costs_the_others_and_the_receipt_nothing(team: Team, wrong: dict[str, str]) -> None:
    line = fresh_line()
    credentials.add(team.instance, team.owner, team.server.id, label="a", username="deploy", public_key=line)
    revision = host_document.decode(str(getattr(documents.signed(team.instance, team.server.id), "text", ""))).revision
    used = {"fingerprint": parse(line).fingerprint, "at": "2026-01-02T03:04:05Z", "address": "203.0.113.7"}
    bad = [{**used, name: "x"} for name in used]
    tell(team, revision=revision, state="applied", sessions=[wrong, session("1-100")], last_used=[*bad, used])
    assert kept(team).keys() == {"1-100"}
    (used_last,) = last_uses(team, parse(line).fingerprint)
    assert (used_last.server_id, used_last.address) == (team.server.id, "203.0.113.7")
    server = team.instance.database.read(lambda connection: servers.by_id(connection, team.server.id))
    assert server is not None
    assert server.applied_revision == revision
    # A session that is known is not over because something else of it was reported wrong.
    tell(team, sessions=[session("1-100", address="UNKNOWN")])
    assert kept(team).keys() == {"1-100"}


@pytest.mark.parametrize(
    ("reported", "shown"),
    [("jürgen", "jürgen"), ("CORP\\анна", "CORP\\анна"), ("a\x1b[1m", "a\\x1b[1m"), ("é" * 70, "é" * 63 + "…")],
)
def test_an_account_may_have_a_name_in_any_script(team: Team, reported: str, shown: str) -> None:
    tell(team, sessions=[session("1-100", user=reported), session("2-200")])
    assert {name: row["username"] for name, row in kept(team).items()} == {"1-100": shown, "2-200": "deploy"}


@pytest.mark.parametrize("state", ["applied", "refused"])
def test_a_report_without_problems_listed_ends_none(team: Team, state: str) -> None:
    tell(team, revision=0, state="applied", problems=["the disk is full"])
    for nothing in ({}, {"problems": 5}):
        tell(team, revision=0, state=state, **nothing)
        server = team.instance.database.read(lambda connection: servers.by_id(connection, team.server.id))
        assert server is not None
        assert server.facts["problems"] == ["the disk is full"]


def test_a_session_to_be_ended_is_named_in_the_document_until_it_is_over(team: Team) -> None:
    tell(team, sessions=[session("1-100"), session("2-200")])
    ending = update(tables.sessions).where(tables.sessions.c.host_session == "1-100").values(ending=True)
    team.instance.database.write(lambda connection: connection.execute(ending))

    def asked() -> tuple[str, ...]:
        signed = documents.signed(team.instance, team.server.id)
        assert signed is not None
        return tuple(host_document.decode(signed.text).end_sessions)

    assert asked() == ("1-100",)
    tell(team, sessions=[session("1-100"), session("2-200")])
    assert asked() == ("1-100",)
    tell(team, sessions=[session("2-200")])
    assert asked() == ()


def test_last_use_only_moves_forward_and_only_for_known_keys(team: Team) -> None:
    line = fresh_line()
    credentials.add(team.instance, team.owner, team.server.id, label="a", username="deploy", public_key=line)
    mine, foreign = parse(line).fingerprint, parse(fresh_line()).fingerprint
    strangers = make_team(team.instance, "umbrella")
    theirs = fresh_line()
    credentials.add(
        team.instance, strangers.owner, strangers.server.id, label="a", username="deploy", public_key=theirs
    )

    def use(fingerprint: str, at: str) -> None:
        entry = {"fingerprint": fingerprint, "at": at, "address": "203.0.113.7", "user": "deploy"}
        tell(team, last_used=[entry])

    use(mine, "2026-01-02T03:04:05Z")
    use(mine, "2026-01-01T00:00:00Z")
    assert [f"{one.at:%Y-%m-%d %H:%M:%S}" for one in last_uses(team, mine)] == ["2026-01-02 03:04:05"]
    use(mine, "2199-01-01T00:00:00Z")
    assert last_uses(team, mine)[0].at <= team.instance.now()
    for fingerprint in (foreign, parse(theirs).fingerprint):
        use(fingerprint, "2026-01-02T03:04:05Z")
        assert not last_uses(team, fingerprint)


def test_when_hosts_were_last_seen_is_written_together(team: Team) -> None:
    now = [100.0]
    last_seen = LastSeen(clock=lambda: now[0])
    server = team.instance.database.read(lambda connection: servers.by_id(connection, team.server.id))
    assert server is not None
    assert not is_online(server, team.instance.now())
    assert last_seen.write(team.instance) == 0
    for _ in range(100):
        last_seen.saw(server.id)
    assert last_seen.write(team.instance) == 1
    last_seen.saw(server.id)
    assert last_seen.write(team.instance) == 0  # too early for another write
    now[0] += 30
    assert last_seen.write(team.instance) == 1
    seen = team.instance.database.read(lambda connection: servers.by_id(connection, team.server.id))
    assert seen is not None
    assert is_online(seen, team.instance.now())
    assert not is_online(seen, team.instance.now() + timedelta(seconds=91))
    assert seen.revision == server.revision
