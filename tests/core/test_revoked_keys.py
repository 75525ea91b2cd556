"""A key that was revoked everywhere stays so until it is lifted, whoever registers it and by whichever way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select

from keyrack import app
from keyrack.core.audit import events
from keyrack.core.git import deploy_keys, repositories
from keyrack.core.hosts import documents, reports, servers, unmanaged_keys
from keyrack.core.instance import Instance
from keyrack.core.keys import credentials, grants, revocation, user_keys
from keyrack.errors import Kind, Refusal
from keyrack.model import Actor, Server
from keyrack.ssh.public_key import parse
from keyrack.store import tables
from keyrack.store.git import deploy_keys as deploy_key_rows
from keyrack.store.git.repositories import Repository
from tests.core.conftest import Team, make_team
from tests.core.keys_for_tests import fresh_line
from tests.core.test_unmanaged_keys import entry
from tests.services import settings_for
from tests.waiting import wait_until


def repository(team: Team, path: str = "acme/site") -> Repository:
    """A repository of the team's workspace."""
    repositories.ensure(team.instance, team.owner, path=path, members={})
    return repositories.find(team.instance, team.owner).items[0]


def put(team: Team, line: str, label: str = "a") -> None:
    """Put a key on deploy of the team's server."""
    credentials.add(team.instance, team.owner, team.server.id, label=label, username="deploy", public_key=line)


def text_of(instance: Instance, server: Server) -> str:
    """What the server's host must obey now."""
    signed = documents.signed(instance, server.id)
    assert signed is not None
    return signed.text


def report_found(team: Team, *found: dict[str, Any]) -> None:
    """The host tells which keys it finds."""
    reports.ingest(team.instance, team.server, {"keys_found": list(found)})


def test_nobody_registers_a_revoked_key_again(team: Team) -> None:
    line = fresh_line()
    fingerprint = parse(line).fingerprint
    place = repository(team)
    put(team, line)
    report_found(team, entry(line))
    grants.give(team.instance, team.owner, user_id=team.member_user.id, server_id=team.server.id, system_user="deploy")
    revocation.revoke_everywhere(team.instance, team.owner, fingerprint, reason="laptop stolen")
    (found,) = unmanaged_keys.find(team.instance, team.owner, team.server.id).items
    ways: list[Callable[[Team], object]] = [
        lambda of: put(of, line),
        lambda of: user_keys.add(of.instance, of.member, title="a", public_key=line),
        lambda of: user_keys.add(of.instance, of.owner, title="a", public_key=line + " another comment"),
        lambda of: unmanaged_keys.accept(of.instance, of.owner, of.server.id, found.id),
        lambda of: deploy_keys.add(of.instance, of.owner, place.id, title="a", public_key=line),
    ]
    for way in ways:
        with pytest.raises(Refusal) as refused:
            way(team)
        assert (refused.value.kind, refused.value.code) == (Kind.INVALID, "key-revoked")
        assert refused.value.field == "public_key"
        assert "new key pair" in refused.value.message
    assert f'"revoked":["{parse(line).canonical}"]' in text_of(team.instance, team.server)
    (noted,) = revocation.find(team.instance, team.owner).items
    assert (noted.fingerprint, noted.revoked_by, noted.reason) == (fingerprint, "olga", "laptop stolen")
    # Another workspace is not this one's to rule.
    strangers = make_team(team.instance, "umbrella")
    put(strangers, line)
    assert revocation.find(strangers.instance, strangers.owner).items == ()


def test_lifting_lets_it_be_registered_and_opens_nothing_by_itself(team: Team) -> None:
    line = fresh_line()
    fingerprint = parse(line).fingerprint
    put(team, line)
    revocation.revoke_everywhere(team.instance, team.owner, fingerprint)
    for stranger in (make_team(team.instance, "umbrella").owner, team.member):
        with pytest.raises(Refusal):
            revocation.lift(team.instance, stranger, fingerprint)
    revocation.lift(team.instance, team.owner, fingerprint)
    assert f'"revoked":["{parse(line).canonical}"]' in text_of(team.instance, team.server)
    assert "Lifted the revocation" in events.find(team.instance, team.owner, limit=1).items[0].summary
    put(team, line)
    assert '"revoked":[]' in text_of(team.instance, team.server)
    revocation.revoke_everywhere(team.instance, team.owner, fingerprint)
    revocation.lift(team.instance, team.owner, fingerprint)
    with pytest.raises(Refusal) as refused:
        revocation.lift(team.instance, team.owner, fingerprint)
    assert refused.value.kind is Kind.MISSING


def test_a_key_that_only_a_hosts_own_file_has_is_revoked_there(team: Team) -> None:
    line = fresh_line()
    report_found(team, entry(line))
    revoked = revocation.revoke_everywhere(team.instance, team.owner, parse(line).fingerprint)
    assert set(revoked.revisions) == {team.server.id}
    assert f'"revoked":["{parse(line).canonical}"]' in text_of(team.instance, team.server)


def test_a_host_that_finds_a_revoked_key_later_is_made_to_refuse_it(team: Team) -> None:
    line = fresh_line()
    put(team, line)
    revocation.revoke_everywhere(team.instance, team.owner, parse(line).fingerprint)
    other = servers.create(team.instance, team.owner, name="web-2", address="192.0.2.11")
    before = text_of(team.instance, other)
    assert '"revoked":[]' in before
    reports.ingest(team.instance, other, {"keys_found": [entry(line)]})
    assert f'"revoked":["{parse(line).canonical}"]' in text_of(team.instance, other)


def _claims(instance: Instance, fingerprint: str) -> list[str]:
    def read(connection: Connection) -> list[str]:
        held = tables.key_owners
        return list(connection.execute(select(held.c.kind).where(held.c.fingerprint == fingerprint)).scalars())

    return instance.database.read(read)


def _revoke(instance: Instance, actor: Actor, fingerprint: str) -> None:
    revocation.revoke_everywhere(instance, actor, fingerprint)


def test_a_deploy_key_of_another_workspace_keeps_its_claim_in_a_race(postgresql_url: str, tmp_path: Path) -> None:
    """One workspace revokes a key everywhere at the moment in which another one makes it its deploy key."""
    instance = app.open_instance(settings_for(tmp_path / "data", postgresql_url))
    try:
        ours, theirs = make_team(instance), make_team(instance, "umbrella")
        line = fresh_line()
        fingerprint = parse(line).fingerprint
        deploy_keys.add(instance, ours.owner, repository(ours).id, title="a", public_key=line)
        place = repository(theirs, "umbrella/site")
        added, go_on = threading.Event(), threading.Event()

        def add_and_linger(connection: Connection) -> None:
            # A write of theirs that has added the key and has not committed yet.
            deploy_key_rows.hold_owner(connection, fingerprint)
            deploy_key_rows.add(
                connection,
                {
                    "repository_id": place.id,
                    "title": "a",
                    "application": "",
                    "public_key": parse(line).canonical,
                    "comment": "",
                    "fingerprint": fingerprint,
                    "can_push": False,
                    "created_at": instance.now(),
                    "seal": b"",
                },
            )
            added.set()
            assert go_on.wait(30)

        adding = threading.Thread(target=instance.database.write, args=(add_and_linger,))
        adding.start()
        assert added.wait(30)
        revoke = threading.Thread(target=_revoke, args=(instance, ours.owner, fingerprint))
        revoke.start()
        # It has to wait for the other one, so let it come as far as it gets.
        wait_until(lambda: not revoke.is_alive() or _someone_waits(instance), "the revocation to finish or wait")
        go_on.set()
        adding.join(30)
        revoke.join(30)
        assert _claims(instance, fingerprint) == ["deploy"]
        assert len(deploy_keys.find(instance, theirs.owner, place.id).items) == 1
        assert deploy_keys.find(instance, ours.owner, repository(ours).id).items == ()
        with pytest.raises(Refusal):
            user_keys.add(instance, theirs.owner, title="a", public_key=line)
    finally:
        instance.database.close()


def _someone_waits(instance: Instance) -> bool:
    def read(connection: Connection) -> int:
        # In this database alone: other tests use the same server.
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        return int(connection.exec_driver_sql(waiting).scalar_one())

    return instance.database.read(read) > 0
