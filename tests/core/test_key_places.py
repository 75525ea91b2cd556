"""Where one key stands is listed whole, in pages, and for nobody who may not see it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from keyrack.core.git import deploy_keys, repositories
from keyrack.core.hosts import reports, servers
from keyrack.core.keys import credentials, findings, freezes, grants, key_places, revocation, user_keys
from keyrack.core.keys.key_places import KeyPlace
from keyrack.errors import Kind, Refusal
from keyrack.model import Actor, Role
from keyrack.ssh.public_key import parse
from keyrack.store.hosts import host_reports
from keyrack.store.keys.uses import GIT
from tests.core.conftest import Team, actor, make_team
from tests.core.keys_for_tests import fresh_line
from tests.core.test_unmanaged_keys import entry


def places(team: Team, line: str, who: Actor | None = None, limit: int = 50) -> list[KeyPlace]:
    """All places of a key, from all pages."""
    cursor = ""
    found: list[KeyPlace] = []
    while True:
        page = key_places.of_key(team.instance, who or team.owner, parse(line).fingerprint, cursor=cursor, limit=limit)
        assert len(page.items) <= limit
        found += page.items
        if page.next is None:
            return found
        cursor = page.next


def everywhere(team: Team, line: str) -> None:
    """Put a key, which is a user's, on two accounts, and have the host find it in two files."""
    for label, username in (("by hand", "deploy"), ("as root", "root")):
        credentials.add(
            team.instance, team.owner, team.server.id, label=label, username=username, public_key=line, duration="1h"
        )
    found = [{**entry(line), "path": path, "in_force": True} for path in ("/etc/ssh/all", "/home/deploy/keys")]
    reports.ingest(team.instance, servers.get(team.instance, team.owner, team.server.id), {"keys_found": found})


def test_each_place_of_a_key_is_listed_on_pages_of_any_size(team: Team) -> None:
    line = fresh_line()
    own = user_keys.add(team.instance, team.member, title="laptop", public_key=line)
    grants.give(team.instance, team.owner, user_id=team.member_user.id, system_user="deploy", tag="web")
    everywhere(team, line)
    whole = places(team, line)
    assert [(one.kind, one.name, one.system_user) for one in whole] == [
        ("user key", "laptop", None),
        ("grant", "laptop", "deploy"),
        ("credential", "by hand", "deploy"),
        ("credential", "as root", "root"),
        ("unmanaged key", "/etc/ssh/all", "deploy"),
        ("unmanaged key", "/home/deploy/keys", "deploy"),
    ]
    assert (whole[0].id, whole[0].user, whole[1].user) == (own.id, "alice", "alice")
    assert {one.server for one in whole[1:]} == {"web-1"}
    assert [one.delivered for one in whole] == [None, False, False, False, None, None]
    assert whole[2].expires_at == whole[2].created_at + timedelta(hours=1)
    for limit in range(1, 8):
        assert places(team, line, limit=limit) == whole


def test_a_place_says_whether_its_key_is_delivered_or_frozen(team: Team) -> None:
    line = fresh_line()
    everywhere(team, line)
    server = servers.get(team.instance, team.owner, team.server.id)
    reports.ingest(team.instance, server, {"revision": server.revision, "state": "applied"})
    assert [one.delivered for one in places(team, line)][:2] == [True, True]
    freezes.freeze(team.instance, team.owner, server=str(team.server.id))
    assert [one.frozen for one in places(team, line)][:2] == [True, True]


def test_a_deploy_key_is_listed_with_its_repositories(team: Team) -> None:
    line = fresh_line()
    for path in ("acme/site", "acme/shop"):
        repositories.ensure(team.instance, team.owner, path=path, members={})
    for repository in repositories.find(team.instance, team.owner).items:
        deploy_keys.add(team.instance, team.owner, repository.id, title="builds", public_key=line, can_push=True)
    whole = places(team, line)
    assert {(one.kind, one.name, one.repository, one.can_push) for one in whole} == {
        ("deploy key", "builds", path, True) for path in ("acme/site", "acme/shop")
    }
    assert places(team, line, limit=1) == whole


def test_nobody_sees_more_places_of_a_key_than_their_lists_show(team: Team) -> None:
    line, other = fresh_line(), fresh_line()
    user_keys.add(team.instance, team.member, title="laptop", public_key=line)
    everywhere(team, line)
    everything = {one.kind for one in places(team, line)}
    assert everything == {"user key", "credential", "unmanaged key"}
    mine = places(team, line, team.member)
    assert [(one.kind, one.system_user) for one in mine] == [
        ("user key", None),
        ("credential", "deploy"),
        ("credential", "root"),
    ], "as the ways in of oneself tell"
    assert [places(team, line, team.member, limit=limit) for limit in (1, 2, 3)] == [mine] * 3
    nobody, _ = actor(team.instance, team.owner.workspace_id, "nora", Role.MEMBER)
    bob, _ = actor(team.instance, team.owner.workspace_id, "bob", Role.MEMBER, "codeartsrepo::*")
    hosts, _ = actor(team.instance, team.owner.workspace_id, "hal", Role.MEMBER, "codeartsrepo::*", "credentials:read")
    stranger = replace(team.owner, workspace_id=team.owner.workspace_id + 1, user_id=None)
    assert {one.kind for one in places(team, line, hosts)} == {"credential", "unmanaged key"}
    for who, kind in ((nobody, Kind.FORBIDDEN), (bob, Kind.MISSING), (stranger, Kind.MISSING)):
        with pytest.raises(Refusal) as refused:
            places(team, line, who)
        assert refused.value.kind is kind
    with pytest.raises(Refusal) as refused:
        places(team, other)
    assert refused.value.kind is Kind.MISSING


def test_a_key_that_was_revoked_everywhere_says_so(team: Team) -> None:
    line = fresh_line()
    fingerprint = parse(line).fingerprint
    credentials.add(team.instance, team.owner, team.server.id, label="a", username="deploy", public_key=line)
    revocation.revoke_everywhere(team.instance, team.owner, fingerprint)
    places = key_places.of_key(team.instance, team.owner, fingerprint)
    assert (places.items, places.next, places.ended_at) == ((), None, None)
    assert places.revoked_at is not None


@pytest.mark.parametrize("cursor", ["x", "WzUsIiJd", "Wy0xLCIiXQ", "WzIsIngiXQ", "WzIsIld6UXhNalF4TWpReE1qUmQiXQ"])
def test_an_invalid_cursor_is_refused(team: Team, cursor: str) -> None:
    line = fresh_line()
    everywhere(team, line)
    with pytest.raises(Refusal) as refused:
        key_places.of_key(team.instance, team.owner, parse(line).fingerprint, cursor=cursor)
    assert refused.value.code == "cursor-unknown"


def test_a_use_in_another_workspace_is_not_told(team: Team) -> None:
    line = fresh_line()
    fingerprint, now = parse(line).fingerprint, team.instance.now()
    user_keys.add(team.instance, team.member, title="laptop", public_key=line)
    other = make_team(team.instance, "other")

    def used(server_id: int, at: datetime) -> datetime | None:
        uses = [(fingerprint, at, "203.0.113.7")]
        team.instance.database.write(lambda connection: host_reports.note_uses(connection, server_id, uses))
        found = findings.find(team.instance, team.owner, kinds=["old"], old_days=0)
        (key,) = [one.key for one in found.items]
        return key.used_at

    assert used(other.server.id, now) is None
    assert used(team.server.id, now - timedelta(days=2)) == now - timedelta(days=2)
    assert used(GIT, now - timedelta(days=1)) == now - timedelta(days=1)
