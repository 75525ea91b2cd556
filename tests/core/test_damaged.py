"""Rows that somebody changed past Keyrack: listed, removed, replaced by entering the same again; they open nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import delete, update

from keyrack.core import cursors
from keyrack.core.git import access
from keyrack.core.hosts import documents, servers
from keyrack.core.keys import credentials, damaged_rows, grants, revocation, user_keys
from keyrack.core.people import actors, offboarding, users
from keyrack.core.workspace import apply as workspace_apply
from keyrack.errors import Kind, Refusal
from keyrack.model import Role
from keyrack.ssh.public_key import parse
from keyrack.store import tables
from tests.core.all_damaged_rows import damaged
from tests.core.conftest import Team, actor
from tests.core.keys_for_tests import fresh_line


def change(team: Team, table: Any, **values: Any) -> None:
    """Write into the database past Keyrack."""
    team.instance.database.write(lambda connection: connection.execute(update(table).values(**values)))


def document(team: Team) -> Any:
    """The server's document as it is now."""
    signed = documents.signed(team.instance, team.server.id)
    assert signed is not None
    return json.loads(signed.text)


def add(team: Team, line: str) -> int:
    """Put a key on deploy, under one label."""
    return credentials.add(
        team.instance, team.owner, team.server.id, label="laptop", username="deploy", public_key=line
    ).id


def test_a_damaged_credential_is_listed_removed_and_refused(team: Team) -> None:
    line, evil = fresh_line(), parse(fresh_line())
    added = add(team, line)
    assert damaged(team.instance, team.owner) == []
    change(team, tables.credentials, public_key=evil.canonical, fingerprint=evil.fingerprint)
    (row,) = damaged(team.instance, team.owner, team.server.id)
    assert row.name == f"credential:{added}"
    other = servers.create(team.instance, team.owner, name="web-2", address="192.0.2.11")
    assert damaged(team.instance, team.owner, other.id) == []
    damaged_rows.remove(team.instance, team.owner, row.name)
    assert document(team)["revoked"] == [evil.canonical]
    assert damaged(team.instance, team.owner) == []


def test_entering_the_same_again_replaces_a_damaged_row(team: Team) -> None:
    line, evil = fresh_line(), parse(fresh_line())
    add(team, line)
    change(team, tables.credentials, public_key=evil.canonical, fingerprint=evil.fingerprint)
    assert document(team)["users"] == {}
    add(team, line)
    assert [key["key"] for key in document(team)["users"]["deploy"]] == [parse(line).canonical]
    assert document(team)["revoked"] == [evil.canonical]
    with pytest.raises(Refusal) as refused:
        add(team, line)
    assert refused.value.kind is Kind.TAKEN


def test_a_users_own_key_too(team: Team) -> None:
    line = fresh_line()
    user_keys.add(team.instance, team.member, title="laptop", public_key=line)
    other, _ = actor(team.instance, team.owner.workspace_id, "mallory", team.member_user.role, "codeartsrepo::*")
    change(team, tables.user_keys, user_id=other.user_id)
    assert access.public_key_of(team.instance, parse(line).fingerprint) is None
    assert len(damaged(team.instance, team.owner)) == 1
    user_keys.add(team.instance, team.member, title="laptop", public_key=line)
    holder = access.holder_of(team.instance, parse(line).fingerprint)
    assert holder is not None
    assert holder.actor.user_id == team.member.user_id
    assert damaged(team.instance, team.owner) == []


def test_a_damaged_grant_is_listed_and_an_unknown_row_refused(team: Team) -> None:
    user_keys.add(team.instance, team.member, title="laptop", public_key=fresh_line())
    grants.give(team.instance, team.owner, user_id=team.member_user.id, server_id=team.server.id, system_user="deploy")
    add(team, fresh_line())
    change(team, tables.grants, system_user="root")
    change(team, tables.credentials, public_key="no key at all")
    rows = damaged(team.instance, team.owner)
    assert sorted(row.kind for row in rows) == ["credential", "grant"]
    for row in rows:
        damaged_rows.remove(team.instance, team.owner, row.name)
    assert document(team)["users"] == {}
    assert document(team)["revoked"] == [], "what is no key would keep the host from reading the rest"


def test_a_sound_row_and_a_strangers_are_not_removed(team: Team) -> None:
    added = add(team, fresh_line())
    stranger = actors.system_actor(users.create_workspace(team.instance, actors.system_actor(), "umbrella").id)
    for by, name in ((team.owner, f"credential:{added}"), (stranger, f"credential:{added}"), (team.owner, "grant:99")):
        with pytest.raises(Refusal) as refused:
            damaged_rows.remove(team.instance, by, name)
        assert refused.value.kind is Kind.MISSING
    for name in ("", "credential", "credential:x", "tokens:1", "credential:-1", "credential:٣"):
        with pytest.raises(Refusal) as refused:
            damaged_rows.remove(team.instance, team.owner, name)
        assert refused.value.kind is Kind.INVALID


def test_a_damaged_revocation_is_removed_only_by_somebody_who_may_lift_it(team: Team) -> None:
    line = fresh_line()
    add(team, line)
    revocation.revoke_everywhere(team.instance, team.owner, parse(line).fingerprint)
    change(team, tables.revoked_keys, revoked_by="mallory")
    (row,) = damaged(team.instance, team.owner)
    assert row.name.startswith("revoked-key:")
    helper, _ = actor(team.instance, team.owner.workspace_id, "helper", Role.MEMBER, "servers:*", "credentials:*")
    with pytest.raises(Refusal) as refused:
        damaged_rows.remove(team.instance, helper, row.name)
    assert (refused.value.kind, "keys:revoke" in refused.value.message) == (Kind.FORBIDDEN, True)
    assert damaged(team.instance, team.owner) == [row]
    damaged_rows.remove(team.instance, team.owner, row.name)


def test_a_damaged_row_is_shown_without_secrets(team: Team) -> None:
    offboarding.offboard(team.instance, team.owner, team.member.name)
    change(team, tables.offboardings, reason="another one")
    change(team, tables.users, password_hash="$argon2id$v=19$secret")
    shown = " ".join(row.what for row in damaged(team.instance, team.owner))
    assert "another one" in shown
    assert "password_hash set" in shown
    assert "kept" not in shown
    assert "argon2" not in shown


def test_a_damaged_revocation_does_not_keep_the_others_from_a_host(team: Team) -> None:
    lines = [fresh_line(), fresh_line()]
    for line in lines:
        credentials.delete(team.instance, team.owner, team.server.id, add(team, line))
    first = parse(lines[0]).fingerprint
    for junk in ("no key at all", "ssh-ed25519 AAAA", "", "ssh-rsa " + parse(lines[0]).canonical.split(" ")[1]):
        row = tables.revocations.c.fingerprint == first
        team.instance.database.write(
            lambda connection, junk=junk, row=row: connection.execute(  # type: ignore[misc]
                update(tables.revocations).where(row).values(public_key=junk)
            )
        )
        assert document(team)["revoked"] == [parse(lines[1]).canonical]


def test_applying_a_file_puts_a_new_grant_in_the_place_of_a_damaged_one(team: Team) -> None:
    alice = team.member_user
    grants.give(team.instance, team.owner, user_id=alice.id, server_id=team.server.id, system_user="deploy")
    change(team, tables.grants, restrictions={"sources": ["0.0.0.0/0"]})
    assert [row.kind for row in damaged(team.instance, team.owner)] == ["grant"]
    text = '[workspace]\nname = "acme"\n[[grants]]\nuser = "alice"\nserver = "web-1"\nsystem_user = "deploy"\n'
    done = workspace_apply.apply(team.instance, text, {})
    assert [words.partition(" alice")[0] for words in done] == ["let in", "remove the damaged row of"]
    assert damaged(team.instance, team.owner) == []
    (left,) = grants.page(team.instance, team.owner).items
    assert dict(left.restrictions) == {}
    assert workspace_apply.apply(team.instance, text, {}) == []


def test_a_check_of_all_rows_goes_on_where_it_stopped(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        credentials.add(
            team.instance, team.owner, team.server.id, label=f"l-{number}", username="deploy", public_key=fresh_line()
        )
    user_keys.add(team.instance, team.member, title="laptop", public_key=fresh_line())
    user_keys.add(team.instance, team.member, title="gone", public_key=fresh_line())
    change(team, tables.credentials, label=tables.credentials.c.label + "x")
    team.instance.database.write(
        lambda c: c.execute(delete(tables.user_keys).where(tables.user_keys.c.title == "gone"))
    )
    every = [row.name for row in damaged(team.instance, team.owner)]
    assert len(every) == len(set(every)) == 6
    for looked, limit in ((10_000, 1), (10_000, 4), (3, 50), (1, 1)):
        monkeypatch.setattr(damaged_rows, "MAX_CHECKED", looked)
        pages, cursor = [], ""
        while True:
            page = damaged_rows.find(team.instance, team.owner, cursor=cursor, limit=limit)
            pages.append([row.name for row in page.items])
            if page.next is None:
                break
            cursor = page.next
        assert [name for names in pages for name in names] == every
        assert max(map(len, pages)) <= limit


def test_an_invented_place_of_a_damaged_row_is_refused(team: Team) -> None:
    for place in (("credentials", "[]"), ("nothing", "[1]"), ("credentials", '["x"]'), ("missing", "[1]"), ("x", "{")):
        with pytest.raises(Refusal) as refused:
            damaged_rows.find(team.instance, team.owner, cursor=cursors.write(place))
        assert refused.value.code == "cursor-unknown"
