"""Many hosts that ask at once: few questions for all of them, each its own document, and one bad row costs one host."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Table

from keyrack.core.hosts import contacts, documents, enrolment, reports, servers, system_users
from keyrack.core.hosts.contacts import Contact, ContactAnswer
from keyrack.core.keys import credentials, grants
from keyrack.errors import Refusal
from keyrack.model import Server
from keyrack.store.people import users as user_rows
from keyrack.store.sealing.seals import Seals
from keyrack.store.tables import credentials as credentials_table
from keyrack.store.tables import servers as servers_table
from tests.core.conftest import Team
from tests.core.keys_for_tests import fresh_line
from tests.statements import prepared_statements


def enrolled(team: Team, number: int) -> tuple[Server, str]:
    """A server whose host enrolled, with an account and a key; and the host's secret."""
    server = servers.create(team.instance, team.owner, name=f"host-{number}", address="192.0.2.1", tags=("web",))
    _, token = servers.invitation(team.instance, team.owner, server.id)
    enrolled = enrolment.enrol(team.instance, token, {}, address="192.0.2.1")
    system_users.create(team.instance, team.owner, server.id, username="deploy")
    credentials.add(
        team.instance, team.owner, server.id, label=f"key-{number}", username="deploy", public_key=fresh_line()
    )
    return server, enrolled.secret


def asks(team: Team, hosts: list[tuple[Server, str]]) -> list[Contact]:
    """Hosts that obey nothing yet."""
    return [Contact(server.id, team.instance.key.hash_token(secret), 0, "") for server, secret in hosts]


def test_the_documents_of_many_hosts_take_as_many_questions_as_those_of_two(team: Team) -> None:
    hosts = [enrolled(team, number) for number in range(12)]
    contacts.answer(team.instance, asks(team, hosts))
    with prepared_statements() as few:
        contacts.answer(team.instance, asks(team, hosts[:2]))
    with prepared_statements() as many:
        answers = contacts.answer(team.instance, asks(team, hosts))
    sent = []
    for (server, _), answer in zip(hosts, answers, strict=True):
        assert isinstance(answer, ContactAnswer)
        fields = json.loads(answer.body)
        alone = documents.signed(team.instance, server.id)
        assert alone is not None
        sent.append(json.loads(fields["document"])["users"])
        assert sent[-1] == json.loads(alone.text)["users"] != {}
    assert len({json.dumps(users) for users in sent}) == len(hosts), "each host has its own key"
    grants = [sql for sql in many if "FROM grants" in sql]
    assert len(many) - len(grants) <= len(few)


def test_a_host_with_another_secret_gets_no_answer_from_memory(team: Team) -> None:
    server, secret = enrolled(team, 0)
    (answer,) = contacts.answer(team.instance, [Contact(server.id, b"another", 0, "")])
    assert answer == ContactAnswer(None)
    known = contacts.CurrentHosts()
    one = asks(team, [(server, secret)])[0]
    (answer,) = contacts.answer(team.instance, [one])
    assert isinstance(answer, ContactAnswer)
    assert answer.state is not None
    revision = answer.state.revision
    known.note(one, answer.state)
    assert known.server_of(one.secret_hash, revision, "") == server.id
    assert known.server_of(b"another", revision, "") is None
    assert known.server_of(one.secret_hash, revision - 1, "") is None
    known.forget(server.id)
    assert known.server_of(one.secret_hash, revision, "") is None


def test_a_check_of_all_servers_finds_those_that_changed_and_those_that_are_gone(team: Team) -> None:
    hosts = [enrolled(team, number) for number in range(4)]
    known = contacts.CurrentHosts()
    for one, answer in zip(asks(team, hosts), contacts.answer(team.instance, asks(team, hosts)), strict=True):
        assert isinstance(answer, ContactAnswer)
        assert answer.state is not None
        known.note(one, answer.state)
    assert list(contacts.changed(team.instance, known.all())) == []
    servers.delete(team.instance, team.owner, hosts[0][0].id)
    credentials.add(team.instance, team.owner, hosts[1][0].id, label="more", username="deploy", public_key=fresh_line())
    reports.ingest(team.instance, hosts[2][0], {"revision": 1, "state": "applied"})
    assert list(contacts.changed(team.instance, known.all())) == [hosts[0][0].id, hosts[1][0].id]


def test_a_server_changed_in_the_database_costs_the_others_nothing(team: Team) -> None:
    hosts = [enrolled(team, number) for number in range(3)]
    damage = servers_table.update().where(servers_table.c.id == hosts[1][0].id).values(host="another")
    team.instance.database.write(lambda connection: connection.execute(damage))
    first, second, third = contacts.answer(team.instance, asks(team, hosts))
    assert isinstance(second, Refusal)
    assert second.code == "seal-broken"
    assert isinstance(first, ContactAnswer)
    assert isinstance(third, ContactAnswer)
    assert first.body
    assert third.body


def test_reports_together_are_kept_and_a_bad_one_costs_the_others_nothing(team: Team) -> None:
    hosts = [enrolled(team, number) for number in range(4)]
    reported: list[dict[str, Any]] = []
    for server, _ in hosts:
        now = servers.get(team.instance, team.owner, server.id)
        reported.append({"revision": now.revision, "state": "applied"})
    reported[2] = {"revision": "all", "state": "applied"}
    batch = [(server, fields) for (server, _), fields in zip(hosts, reported, strict=True)]
    results = reports.ingest_together(team.instance, batch)
    assert [result is None for result in results] == [True, True, False, True]
    assert isinstance(results[2], Refusal)
    applied = [servers.get(team.instance, team.owner, server.id).applied_revision for server, _ in hosts]
    assert applied == [reported[0]["revision"], reported[1]["revision"], 0, reported[3]["revision"]]


def reports_of(team: Team, hosts: list[tuple[Server, str]]) -> list[tuple[Server, dict[str, Any]]]:
    """Reports of hosts that obey what is newest, each by the server's record as its secret proves it."""
    proofs = [(secret, "192.0.2.1") for _, secret in hosts]
    proved = [found for found in enrolment.authenticate_together(team.instance, proofs) if isinstance(found, Server)]
    assert [server.id for server in proved] == [server.id for server, _ in hosts]
    return [(server, {"revision": server.revision, "state": "applied"}) for server in proved]


def test_the_reports_of_many_hosts_take_as_many_statements_as_those_of_two(team: Team) -> None:
    hosts = [enrolled(team, number) for number in range(12)]
    assert reports.ingest_together(team.instance, reports_of(team, hosts)) == [None] * 12
    user = team.instance.database.read(lambda connection: user_rows.user(connection, team.owner.user_id or 0))
    assert user is not None
    for some in (hosts, hosts[:2]):
        grants.give(team.instance, team.owner, user_id=user.id, tag="web", system_user="deploy")
        with prepared_statements() as asked:
            proved = reports_of(team, some)
        by_secret = [sql for sql in asked if "agent_secret_hash = " in sql]
        assert (len(by_secret), len(asked) - len(by_secret)) == (len(some), 2)
        with prepared_statements() as asked:
            assert reports.ingest_together(team.instance, proved) == [None] * len(some)
        assert len([sql for sql in asked if "advisory" not in sql]) == 4, asked
    applied = [servers.get(team.instance, team.owner, server.id) for server, _ in hosts]
    assert [one.applied_revision - one.revision for one in applied] == [0, 0] + [-1] * 10


def test_the_second_report_of_a_host_among_many_follows_its_first(team: Team) -> None:
    (server, reported), (other, others) = reports_of(team, [enrolled(team, number) for number in range(2)])
    first, second = {**reported, "problems": ["not yet"]}, {**reported, "problems": ["still not"]}
    batch = [(server, first), (other, others), (server, second)]
    assert reports.ingest_together(team.instance, batch) == [None] * 3
    assert servers.get(team.instance, team.owner, server.id).facts.get("problems") == ["still not"]


def test_a_row_that_stands_as_it_was_is_checked_once_and_one_that_was_altered_is_left_out(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, _ = enrolled(team, 0)
    add = partial(credentials.add, team.instance, team.owner, server.id, username="deploy")
    made = [add(label=f"more-{number}", public_key=fresh_line()) for number in range(3)]
    assert len(keys_of(team, server)) == 4
    checked: list[str] = []
    holds = Seals.holds

    def counting(seals: Seals, table: Table, values: Mapping[str, Any]) -> bool:
        checked.append(table.name)
        return holds(seals, table, values)

    monkeypatch.setattr(Seals, "holds", counting)
    add(label="one more", public_key=fresh_line())
    checked.clear()
    assert len(keys_of(team, server)) == 5
    assert checked.count("credentials") == 1
    other = made[0].public_key
    altered = credentials_table.update().where(credentials_table.c.id == made[1].id).values(public_key=other)
    team.instance.database.write(lambda connection: connection.execute(altered))
    assert sorted(keys_of(team, server)) == sorted(set(keys_of(team, server)) - {made[1].public_key})
    assert len(keys_of(team, server)) == 4


def keys_of(team: Team, server: Server) -> list[str]:
    """The keys in a server's document."""
    document = documents.signed(team.instance, server.id)
    assert document is not None
    return [entry["key"] for entry in json.loads(document.text)["users"]["deploy"]]
