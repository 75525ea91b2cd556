"""A host's document: the widest of what holds, nothing that ended, and no row that was tampered with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from keyrack.core.audit import events
from keyrack.core.hosts import documents, reports
from keyrack.core.keys import credentials, freezes, grants, restricting, user_keys
from keyrack.core.people import users
from keyrack.errors import Kind, Refusal
from keyrack.protocol import host_document
from keyrack.ssh.public_key import parse
from keyrack.store import tables
from keyrack.store.keys import credentials as credential_rows
from keyrack.store.sealing.seals import OF_SERVER
from tests.core.conftest import Team, make_team
from tests.core.keys_for_tests import fresh_line


def document_of(team: Team) -> Mapping[str, Any]:
    """The server's document as it is now."""
    signed = documents.signed(team.instance, team.server.id)
    assert signed is not None
    document: Mapping[str, Any] = json.loads(signed.text)
    return document


def add(team: Team, label: str, line: str, **more: Any) -> Any:
    """Put a key on deploy."""
    return credentials.add(
        team.instance, team.owner, team.server.id, label=label, username="deploy", public_key=line, **more
    )


def test_two_entries_of_a_key_on_one_account_are_one_line_with_the_latest_end(team: Team) -> None:
    line = fresh_line("comment")
    now = team.instance.now()
    add(team, "a", line, expires_at=now + timedelta(hours=1))
    later = add(team, "b", line, expires_at=now + timedelta(hours=2))
    keys = document_of(team)["users"]["deploy"]
    assert [key["key"] for key in keys] == [parse(line).canonical]
    assert keys[0]["expires_at"] == f"{later.expires_at:%Y-%m-%dT%H:%M:%SZ}"
    add(team, "c", line)
    assert [key["expires_at"] for key in document_of(team)["users"]["deploy"]] == [None]


def test_a_deleted_key_is_revoked_unless_something_still_lets_it_in(team: Team) -> None:
    line = fresh_line()
    canonical = parse(line).canonical
    first, second = add(team, "a", line), add(team, "b", line)
    credentials.delete(team.instance, team.owner, team.server.id, first.id)
    assert document_of(team)["revoked"] == []
    credentials.delete(team.instance, team.owner, team.server.id, second.id)
    assert document_of(team)["revoked"] == [canonical]
    assert "deploy" not in document_of(team)["users"]
    add(team, "a", line)
    assert document_of(team)["revoked"] == []


def test_grants_carry_all_of_a_users_keys(team: Team) -> None:
    lines = [fresh_line(), fresh_line()]
    one = user_keys.add(team.instance, team.member, title="one", public_key=lines[0])
    assert "deploy" not in document_of(team)["users"]
    grant = grants.give(team.instance, team.owner, user_id=team.member_user.id, tag="web", system_user="deploy")
    user_keys.add(team.instance, team.member, title="two", public_key=lines[1])
    user_keys.add(team.instance, team.member, title="none", public_key=None, keyless=True)
    expected = {parse(line).canonical for line in lines}
    assert {key["key"] for key in document_of(team)["users"]["deploy"]} == expected
    user_keys.delete(team.instance, team.member, one.id)
    assert document_of(team)["revoked"] == [parse(lines[0]).canonical]
    grants.take_back(team.instance, team.owner, grant.id)
    assert document_of(team)["users"] == {}
    assert set(document_of(team)["revoked"]) == expected


def test_a_disabled_users_keys_leave(team: Team) -> None:
    line = fresh_line()
    user_keys.add(team.instance, team.member, title="one", public_key=line)
    grants.give(team.instance, team.owner, user_id=team.member_user.id, server_id=team.server.id, system_user="deploy")
    assert document_of(team)["users"]["deploy"]
    users.change(team.instance, team.owner, team.member_user.id, enabled=False)
    assert document_of(team)["users"] == {}
    assert document_of(team)["revoked"] == [parse(line).canonical]


@pytest.mark.parametrize("kind", ["credential", "user key", "grant", "entered"])
def test_a_row_changed_in_the_database_is_left_out_and_nothing_else(team: Team, kind: str) -> None:
    add(team, "a", fresh_line())
    good, gone = fresh_line(), fresh_line()
    add(team, "good", good)
    credentials.delete(team.instance, team.owner, team.server.id, add(team, "gone", gone).id)
    user_keys.add(team.instance, team.member, title="one", public_key=fresh_line())
    grants.give(team.instance, team.owner, user_id=team.member_user.id, server_id=team.server.id, system_user="deploy")
    assert document_of(team)
    evil = parse(fresh_line())
    changes: dict[str, Any] = {
        "credential": update(tables.credentials)
        .where(tables.credentials.c.label == "a")
        .values(public_key=evil.canonical, fingerprint=evil.fingerprint),
        "user key": update(tables.user_keys).values(public_key=evil.canonical, fingerprint=evil.fingerprint),
        "grant": update(tables.grants).values(system_user="root"),
        "entered": insert(tables.credentials).values(
            server_id=team.server.id,
            system_user_id=team.deploy.id,
            label="entered",
            public_key=evil.canonical,
            comment="",
            fingerprint=evil.fingerprint,
            key_type=evil.type,
            temporary=False,
            restrictions={},
            created_at=team.instance.now(),
            revision=1,
            seal=b"\0" * 32,
        ),
    }
    team.instance.database.write(lambda connection: connection.execute(changes[kind]))
    for _ in range(2):
        document = document_of(team)
    opened = {key["key"] for keys in document["users"].values() for key in keys}
    assert evil.canonical not in opened
    assert "root" not in document["users"]
    assert parse(good).canonical in opened
    assert document["revoked"] == [parse(gone).canonical]
    alarms = [one for one in events.find(team.instance, team.owner, limit=1000).items if one.level == "alarm"]
    assert len(alarms) == 1
    assert "was changed in the database" in alarms[0].summary


def test_workspaces_do_not_leak_into_each_others_documents(team: Team) -> None:
    others = make_team(team.instance, "umbrella")
    user_keys.add(team.instance, others.member, title="x", public_key=fresh_line())
    grants.give(team.instance, others.owner, user_id=others.member_user.id, tag="web", system_user="deploy")
    assert document_of(team)["users"] == {}
    for user, server in ((others.member_user, team.server), (team.member_user, others.server)):
        with pytest.raises(Refusal) as refused:
            grants.give(team.instance, team.owner, system_user="deploy", user_id=user.id, server_id=server.id)
        assert refused.value.kind is Kind.MISSING


def checked(team: Team) -> dict[Any, Any]:
    """What is kept of the credentials that were checked for documents."""
    kept = team.instance.database.seals.kept
    return {
        name: one
        for (of, _), rows in kept.items()
        if of is credential_rows._checked_credentials
        for name, one in rows.items()
    }


def test_a_report_has_no_key_checked_anew(team: Team) -> None:
    """What is noted of a key that its host has is no change of the key: all of a large host's would be read again."""
    for number in range(3):
        add(team, f"key-{number}", fresh_line())
    before = document_of(team)
    first = checked(team)
    assert len(first) == 3
    reports.ingest(team.instance, team.server, {"revision": before["revision"], "state": "applied"})
    noted = select(tables.credentials.c.acknowledged_at)
    assert None not in team.instance.database.read(lambda connection: connection.execute(noted).scalars().all())
    assert document_of(team)["users"] == before["users"]
    second = checked(team)
    assert all(second[name] is record for name, record in first.items())


def test_nothing_is_kept_in_memory_of_keys_that_are_deleted(team: Team) -> None:
    seals = team.instance.database.seals

    def kept() -> int:
        return sum(len(rows) for rows in seals.kept.values())

    def come_and_go(number: int) -> None:
        one = add(team, f"key-{number}", fresh_line())
        own = user_keys.add(team.instance, team.member, title=f"key-{number}", public_key=fresh_line())
        document_of(team)
        assert one in credentials.find(team.instance, team.owner, team.server.id).items
        assert own in user_keys.find(team.instance, team.member).items
        credentials.delete(team.instance, team.owner, team.server.id, one.id)
        user_keys.delete(team.instance, team.member, own.id)
        document_of(team)

    come_and_go(0)
    before = kept()
    for number in range(1, 6):
        come_and_go(number)
    assert kept() == before
    there = team.instance.database.read(
        lambda connection: {
            seal for name in OF_SERVER for seal in connection.scalars(select(tables.metadata.tables[name].c.seal))
        }
    )
    assert seals.summands.keys() <= there


def test_a_frozen_key_let_in_by_two_grants_is_one_line(team: Team) -> None:
    """A host refuses a document that holds a key twice, and with it the freeze and every revocation after it."""
    line = fresh_line()
    user_keys.add(team.instance, team.member, title="laptop", public_key=line)
    place: dict[str, Any] = {"user_id": team.member_user.id, "server_id": team.server.id, "system_user": "deploy"}
    ways: tuple[dict[str, Any], ...] = (
        {},
        {},
        {"break_glass": True},
        {"expires_at": team.instance.now() + timedelta(hours=1)},
    )
    for more in ways:
        grants.give(team.instance, team.owner, **place, **more)
    add(team, "by hand", fresh_line())
    freezes.freeze(team.instance, team.owner)
    document = host_document.decode(json.dumps(document_of(team)))
    key = parse(line).canonical
    assert [one.public_key for one in document.frozen["deploy"]].count(key) == 1
    assert [one.public_key for one in document.users["deploy"]] == [key], "by the grant to break glass with"


def test_the_line_of_an_unchanged_key_is_rendered_once(team: Team) -> None:
    """The document of a large host is made anew for each of its keys that changes."""
    lines = [fresh_line() for _ in range(3)]
    for number, line in enumerate(lines[:2]):
        add(team, f"key-{number}", line)
    before = document_of(team)
    reports.ingest(team.instance, team.server, {"revision": before["revision"], "state": "applied"})
    document_of(team)
    made = {name: one.made.rendered[0] for name, (one, *_) in checked(team).items()}
    assert len(made) == 2
    add(team, "key-2", lines[2])
    assert len(document_of(team)["users"]["deploy"]) == 3
    now = {name: one for name, (one, *_) in checked(team).items()}
    assert all(now[name].made.rendered[0] is entry for name, entry in made.items())


def test_a_remembered_line_follows_every_change_of_its_key(team: Team) -> None:
    first, second = add(team, "a", fresh_line()), add(team, "b", fresh_line())
    before = document_of(team)
    reports.ingest(team.instance, team.server, {"revision": before["revision"], "state": "applied"})
    document_of(team)
    restricting.credential(team.instance, team.owner, first.id, {"command": "true"})
    changed = document_of(team)["users"]["deploy"]
    assert [key["options"] for key in changed if key["name"] == "a"] == [['command="true"']]
    freezes.freeze(team.instance, team.owner)
    frozen = document_of(team)
    assert (frozen["users"], {key["name"] for key in frozen["frozen"]["deploy"]}) == ({}, {"a", "b"})
    credentials.delete(team.instance, team.owner, team.server.id, second.id)
    assert {key["name"] for key in document_of(team)["frozen"]["deploy"]} == {"a"}


def test_a_document_put_together_of_kept_parts_is_the_same_text(team: Team) -> None:
    """Parts of it are kept and put together; whole or in parts it is the same."""
    add(team, 'a "name" é', fresh_line(), expires_at=team.instance.now() + timedelta(hours=1))
    add(team, "b", fresh_line(), restrictions={"command": "true"})
    signed = documents.signed(team.instance, team.server.id)
    assert signed is not None
    fields = json.loads(signed.text)
    assert list(fields["users"]) == ["deploy"]
    assert signed.text == json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    assert signed.text == host_document.encode(host_document.decode(signed.text))
