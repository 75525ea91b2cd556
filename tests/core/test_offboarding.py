"""One call removes a person everywhere, says who has obeyed, and can be undone for a while; on both databases."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from keyrack import app
from keyrack.core.audit import events
from keyrack.core.git import repositories
from keyrack.core.git.endpoints import GitEndpoint
from keyrack.core.hosts import documents, enrolment, reports, servers
from keyrack.core.hosts.system_users import create
from keyrack.core.instance import Instance
from keyrack.core.keys import credentials, grants, key_sources, requests, revocation, user_keys
from keyrack.core.people import access_keys, actors, groups, offboarding, offboarding_undo, tokens, users
from keyrack.errors import Kind, Refusal
from keyrack.model import Actor, Role, Server
from keyrack.protocol import host_document
from keyrack.ssh.public_key import parse
from keyrack.store.hosts import host_reports
from keyrack.store.tables import offboardings
from keyrack.web.native import shapes_offboardings
from tests.core.conftest import Team, actor, make_team
from tests.core.keys_for_tests import fresh_line
from tests.services import settings_for


def host(team: Team, name: str) -> Server:
    """A server with an account deploy and an enrolled host."""
    server = servers.create(team.instance, team.owner, name=name, address="192.0.2.20", tags=("web",))
    create(team.instance, team.owner, server.id, username="deploy")
    token = servers.invite(team.instance, team.owner, server.id)
    return enrolment.enrol(team.instance, token, {}, address="192.0.2.20").server


def document_of(team: Team, server: Server) -> Any:
    """A host's document now."""
    signed = documents.signed(team.instance, server.id)
    assert signed is not None
    return host_document.decode(signed.text)


def obey(team: Team, server: Server) -> None:
    """The host reports that it obeys its newest document."""
    reports.ingest(team.instance, server, {"revision": document_of(team, server).revision, "state": "applied"})


def lines(document: Any) -> dict[str, list[str]]:
    """The keys that a document lets in, by account."""
    return {name: [line.public_key for line in keys] for name, keys in document.users.items()}


class Alice:
    """Somebody with a bit of everything, on three hosts."""

    def __init__(self, team: Team) -> None:
        self.team, instance, owner = team, team.instance, team.owner
        self.key, self.other, self.of_bob = fresh_line(), fresh_line(), fresh_line()
        user_keys.add(instance, team.member, title="laptop", public_key=self.key)
        user_keys.add(instance, team.member, title="desk", public_key=self.other)
        self.hosts = [host(team, f"host-{number}") for number in range(3)]
        user = team.member_user
        grants.give(instance, owner, user_id=user.id, server_id=self.hosts[0].id, system_user="deploy")
        groups.ensure(instance, owner, name="ops", user_ids=[user.id])
        ops = groups.id_of(instance, owner, "ops")
        grants.give(instance, owner, group_id=ops, tag="web", system_user="root")
        for number in (0, 2):
            credentials.add(
                instance, owner, self.hosts[number].id, label="of alice", username="deploy", public_key=self.key
            )
        credentials.add(instance, owner, self.hosts[2].id, label="b", username="deploy", public_key=self.of_bob)
        repositories.ensure(instance, owner, path="acme/site", members={user.id: "developer"})
        self.token = tokens.create(instance, owner, user, name="ci", scopes=["*"])[0]
        access_keys.create(instance, owner, user_uid=user.uid, description="build")
        live = {
            "host_session": "s-1",
            "username": "deploy",
            "address": "198.51.100.3",
            "fingerprint": parse(self.key).fingerprint,
            "started_at": instance.now(),
        }
        at = self.hosts[0].id
        instance.database.write(lambda connection: host_reports.add_sessions(connection, at, [live]))

    @property
    def opened(self) -> list[dict[str, list[str]]]:
        """What opens which account where."""
        return [lines(document_of(self.team, one)) for one in (self.team.server, *self.hosts)]


def code(refused: pytest.ExceptionInfo[Refusal]) -> tuple[Kind, str]:
    """What a refusal is."""
    return refused.value.kind, refused.value.code


def test_removing_a_person_removes_what_the_preview_showed(team: Team) -> None:
    alice = Alice(team)
    instance, owner = team.instance, team.owner
    for one in alice.hosts:
        obey(team, one)
    before, seen = alice.opened, events.find(instance, owner, limit=1).total
    going = offboarding.preview(instance, owner, "alice")
    assert (alice.opened, events.find(instance, owner, limit=1).total) == (before, seen)
    assert sorted(key["title"] for key in going.gone["keys"]) == ["desk", "laptop"]
    assert [one["server"] for one in going.gone["credentials"]] == ["host-0", "host-2"]
    assert (going.gone["groups"], going.gone["repositories"]) == (["ops"], [{"path": "acme/site", "role": "developer"}])
    assert going.gone["servers"] == ["host-0", "host-1", "host-2", "web-1"]

    made = offboarding.offboard(instance, owner, "alice", reason="left")
    assert made.gone == going.gone
    mine = {parse(alice.key).canonical, parse(alice.other).canonical}
    assert alice.opened == [{}, {}, {}, {"deploy": [parse(alice.of_bob).canonical]}]
    for one in alice.hosts:
        assert mine <= set(document_of(team, one).revoked)
    assert document_of(team, alice.hosts[0]).end_sessions == ("s-1",)
    with pytest.raises(Refusal) as refused:
        tokens.authenticate(instance, alice.token, address="", channel="test")
    assert refused.value.kind is Kind.UNAUTHENTICATED
    after = offboarding.preview(instance, owner, "alice")
    assert not any(value for kind, value in after.gone.items() if kind not in ("sessions", "servers"))
    words = events.find(instance, owner, limit=1).items[0].summary
    assert words.startswith("Removed alice everywhere: 2 SSH keys, 2 credentials, 1 grant, 1 group membership")
    assert words.endswith("on 4 hosts (left)")


def test_pending_requests_and_key_sources_go_too(team: Team) -> None:
    instance, owner = team.instance, team.owner
    key_sources.put(instance, team.member, "alice", "github", account="octocat")
    asked = {"server": "web-1", "system_user": "deploy", "duration": "1h", "reason": "a look"}
    mine = requests.ask(instance, team.member, **asked)
    going = offboarding.preview(instance, owner, "alice")
    assert going.gone["key_sources"] == ["octocat at https://github.com"]
    assert going.gone["requests"] == [{"id": mine.id, "server": "web-1", "tag": None, "system_user": "deploy"}]
    made = offboarding.offboard(instance, owner, "alice")
    assert made.gone == going.gone
    assert "1 key source and 1 pending request" in events.find(instance, owner, limit=1).items[0].summary
    (left,) = requests.page(instance, owner)[0].items
    assert (left.state, left.decided_by) == ("cancelled", "olga")
    assert key_sources.find(instance, owner, "alice") == ()
    with pytest.raises(Refusal, match="cancelled"):
        requests.approve(instance, owner, mine.id)


def test_the_receipt_of_an_offboarding_is_complete_once_the_last_host_obeys(team: Team) -> None:
    alice = Alice(team)
    instance, owner = team.instance, team.owner
    made = offboarding.offboard(instance, owner, "alice")
    progress = offboarding.get(instance, owner, made.id)
    # web-1 has no host, so nobody's word is waited for there.
    assert progress.words == "done on 0 of 3 servers; not yet on host-0, host-1, host-2; 1 has no host"
    obey(team, alice.hosts[0])
    obey(team, alice.hosts[2])
    progress = offboarding.get(instance, owner, made.id)
    assert (progress.done, progress.words) == (False, "done on 2 of 3 servers; not yet on host-1; 1 has no host")
    at = {one.server_name: one.acknowledged_at for one in progress.hosts}
    obey(team, alice.hosts[1])
    progress = offboarding.get(instance, owner, made.id)
    assert progress.done
    assert all(one.applied >= one.wanted > 0 for one in progress.hosts if one.has_host)
    assert {one.server_name: one.acknowledged_at for one in progress.hosts} == at | {
        "host-1": progress.hosts[1].acknowledged_at
    }
    assert events.find(instance, owner, limit=1).items[0].summary == "Every host obeys that alice is gone"


def test_hosts_that_were_to_refuse_before_are_waited_for(team: Team) -> None:
    """Taken from the person an hour ago, and a host that is off still lets them in: it belongs in the receipt."""
    line = fresh_line()
    instance, owner = team.instance, team.owner
    user_keys.add(instance, team.member, title="laptop", public_key=line)
    off, buried = host(team, "off"), host(team, "buried")
    for server in (off, buried):
        given = grants.give(instance, owner, user_id=team.member_user.id, server_id=server.id, system_user="deploy")
        obey(team, server)
        if server is off:
            grants.take_back(instance, owner, given.id)
    servers.delete(instance, owner, buried.id)
    made = offboarding.offboard(instance, owner, "alice")
    waited = {one.server_name: one.done for one in offboarding.get(instance, owner, made.id).hosts}
    assert waited == {"off": False, "buried (deleted)": False}


def test_undo_brings_back_access_and_no_tokens(team: Team) -> None:
    alice = Alice(team)
    instance, owner = team.instance, team.owner
    before, roles = alice.opened, users.find(instance, owner)
    made = offboarding.offboard(instance, owner, "alice")
    for one in alice.hosts:
        obey(team, one)
    done = offboarding_undo.undo(instance, owner, made.id)
    assert done.left == ()
    assert alice.opened == before
    assert users.find(instance, owner) == roles
    assert not any(document_of(team, one).revoked for one in alice.hosts)
    again = offboarding.preview(instance, owner, "alice").gone
    same = ("keys", "credentials", "grants", "groups", "repositories", "servers")
    assert {name: again[name] for name in same} == {name: made.gone[name] for name in same}
    assert (again["tokens"], again["access_keys"]) == ([], [])
    with pytest.raises(Refusal) as refused:
        tokens.authenticate(instance, alice.token, address="", channel="test")
    assert refused.value.kind is Kind.UNAUTHENTICATED
    with pytest.raises(Refusal) as refused:
        offboarding_undo.undo(instance, owner, made.id)
    assert code(refused) == (Kind.TAKEN, "undone-already")
    # And once more from the start.
    assert offboarding.offboard(instance, owner, "alice").id != made.id
    assert alice.opened[0] == {}


def test_undoing_a_removal_leaves_names_and_keys_taken_since(team: Team) -> None:
    alice = Alice(team)
    instance, owner = team.instance, team.owner
    made = offboarding.offboard(instance, owner, "alice")
    bob, _ = actor(instance, owner.workspace_id, "bob", Role.MEMBER, "codeartsrepo::*")
    user_keys.add(instance, bob, title="found on a desk", public_key=alice.other)
    revocation.revoke_everywhere(instance, owner, parse(alice.other).fingerprint)
    servers.delete(instance, owner, alice.hosts[0].id)
    done = offboarding_undo.undo(instance, owner, made.id)
    assert any("was revoked since" in words for words in done.left)
    assert "a grant of a host that was deleted" in done.left
    assert lines(document_of(team, alice.hosts[1])) == {"root": [parse(alice.key).canonical]}
    assert parse(alice.other).canonical in document_of(team, alice.hosts[1]).revoked


def test_undo_gives_no_membership_of_a_repository_that_one_may_not_give(team: Team) -> None:
    instance, owner = team.instance, team.owner
    held = {owner.user_id or 0: "admin", team.member_user.id: "admin"}
    repositories.ensure(instance, owner, path="acme/site", members=held)
    made = offboarding.offboard(instance, owner, "alice")
    bob, _ = actor(instance, owner.workspace_id, "bob", Role.MEMBER, "people:offboard", "codeartsrepo::*")
    with pytest.raises(Refusal) as refused:
        offboarding_undo.undo(instance, bob, made.id)
    assert code(refused) == (Kind.FORBIDDEN, "not-allowed")
    assert "createMembers" in refused.value.message
    assert offboarding_undo.undo(instance, owner, made.id).back["repository_members"] == 1


def test_undo_has_an_end(team: Team) -> None:
    instance, owner = team.instance, team.owner
    made = offboarding.offboard(instance, owner, "alice")
    moved = replace(instance, now=lambda: made.undo_until)
    with pytest.raises(Refusal) as refused:
        offboarding_undo.undo(moved, owner, made.id)
    assert code(refused) == (Kind.INVALID, "too-late")
    assert "Enable the user" in refused.value.message


def test_an_altered_row_brings_nothing_back(team: Team) -> None:
    instance, owner = team.instance, team.owner
    Alice(team)
    made = offboarding.offboard(instance, owner, "alice")

    def alter(connection: Any) -> None:
        kept = {**made.kept, "grants": [{**made.kept["grants"][0], "system_user": "root"}]}
        connection.execute(offboardings.update().values(kept=kept))

    instance.database.write(alter)
    with pytest.raises(Refusal) as refused:
        offboarding_undo.undo(instance, owner, made.id)
    assert code(refused) == (Kind.UNAVAILABLE, "seal-broken")


@pytest.mark.parametrize("gone", [{}, [], {"keys": 7}], ids=str)
def test_an_offboarding_changed_in_the_database_is_not_shown_as_what_was_removed(team: Team, gone: Any) -> None:
    Alice(team)
    made = offboarding.offboard(team.instance, team.owner, "alice")
    assert made.gone["keys"]
    team.instance.database.write(lambda connection: connection.execute(offboardings.update().values(gone=gone)))
    (listed,) = offboarding.find(team.instance, team.owner).items
    shown = shapes_offboardings.offboarding(listed)
    assert (shown.gone.keys, shown.gone_words) == ([], offboarding.taken_away(listed.offboarding))
    assert shown.gone_words.startswith("not known, as")


def test_the_last_owner_and_unknown_people_cannot_be_removed(team: Team) -> None:
    instance, owner = team.instance, team.owner
    with pytest.raises(Refusal) as refused:
        offboarding.offboard(instance, owner, "olga")
    assert code(refused) == (Kind.INVALID, "last-owner")
    with pytest.raises(Refusal) as refused:
        offboarding.preview(instance, owner, "olga")
    assert code(refused) == (Kind.INVALID, "last-owner")
    with pytest.raises(Refusal) as refused:
        offboarding.offboard(instance, team.member, "olga")
    assert code(refused) == (Kind.FORBIDDEN, "not-allowed")
    with pytest.raises(Refusal) as refused:
        offboarding.offboard(instance, owner, "nobody")
    assert refused.value.kind is Kind.MISSING
    admin, _ = actor(instance, owner.workspace_id, "adam", Role.ADMIN)
    limited = replace(admin, scopes=("people:*",))
    with pytest.raises(Refusal) as refused:
        offboarding.offboard(instance, limited, "olga")
    assert refused.value.kind is Kind.FORBIDDEN
    actor(instance, owner.workspace_id, "otto", Role.OWNER)
    offboarding.offboard(instance, owner, "olga")
    # One who is left cannot go, not even by own hand.
    with pytest.raises(Refusal) as refused:
        offboarding.offboard(instance, actors.system_actor(owner.workspace_id), "otto")
    assert code(refused) == (Kind.INVALID, "last-owner")


def test_a_second_call_answers_the_first(team: Team) -> None:
    alice = Alice(team)
    instance, owner = team.instance, team.owner
    for one in alice.hosts:
        obey(team, one)
    made = offboarding.offboard(instance, owner, "alice")
    for one in alice.hosts:
        obey(team, one)
        instance.database.write(partial(host_reports.end_sessions, server_id=one.id, names=["s-1"]))
    assert offboarding.offboard(instance, owner, "alice").id == made.id


def test_git_endpoints_are_waited_for(team: Team) -> None:
    instance, owner = team.instance, team.owner
    endpoint, ended = GitEndpoint(instance, "git-1:2223"), GitEndpoint(instance, "git-2:2223")
    assert endpoint.to_end() == {}
    ended.to_end()
    made = offboarding.offboard(instance, owner, "alice")
    assert not offboarding.get(instance, owner, made.id).done
    assert endpoint.to_end() == {made.id: team.member_user.id}
    endpoint.ended({made.id: 2})
    assert offboarding.get(instance, owner, made.id).words.endswith("Git not yet at git-2:2223")
    ended.close()
    progress = offboarding.get(instance, owner, made.id)
    assert progress.done
    assert [(one.name, one.stopped) for one in progress.git] == [("git-1:2223", 2), ("git-2:2223", 0)]


REMOVING = """
import sys
from functools import partial
from pathlib import Path
from keyrack import app
from keyrack.core.people import actors, offboarding, users
from tests.services import settings_for
instance = app.open_instance(settings_for(Path(sys.argv[1]), ""))
print("ready", flush=True)
sys.stdin.readline()
offboarding.offboard(instance, actors.system_actor(1), "alice")
print("done", flush=True)
"""


def state(instance: Instance, actor: Actor) -> Mapping[str, Any]:
    """What alice has, and whether she is in."""
    going = offboarding.preview(instance, actor, "alice")
    return {**going.gone, "out": going.user.disabled_at is not None}


def test_killed_in_the_middle_it_is_whole_or_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    instance = app.open_instance(settings_for(folder, ""))
    team = make_team(instance)
    owner = team.owner
    for number in range(60):
        servers.create(instance, owner, name=f"more-{number}", address="192.0.2.20", tags=("web",))
    Alice(team)
    before = state(instance, owner)
    seen = set()
    for number in range(5 if not os.environ.get("KEYRACK_LONG") else 60):
        child = subprocess.Popen(
            [sys.executable, "-c", REMOVING, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.stdin.write("\n")
        child.stdin.flush()
        time.sleep(0.004 * (number % 15))
        child.send_signal(signal.SIGKILL)
        said = child.stdout.read()
        child.wait(30)
        child.stdin.close()
        child.stdout.close()
        now = state(instance, owner)
        left = offboarding.find(instance, owner).total
        if now["out"]:
            assert not any(now[kind] for kind in ("keys", "credentials", "grants", "groups", "tokens", "access_keys"))
            assert left == 1
            seen.add("whole")
            break
        assert "done" not in said
        assert (now, left) == (before, 0)
        seen.add("nothing")
    assert seen
    instance.database.close()
