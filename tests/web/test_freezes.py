"""Frozen keys: they open no new session until their owners confirm them, sessions go on, and glass can be broken."""

from __future__ import annotations

from typing import Any

import pytest

from keyrack.agent.sessions.session_processes import LoginSession
from keyrack.agent.sessions.sessions import Rights
from keyrack.core.git import access as git
from keyrack.core.hosts import documents
from keyrack.protocol import host_document
from keyrack.protocol.host_document import HostDocument
from keyrack.ssh.public_key import parse
from tests.core.keys_for_tests import fresh_line
from tests.services import Service
from tests.web.test_native import call, enrol, tell

OLGA, ALICE, BOB = "token-of-olga", "token-of-alice", "token-of-bob"
KEYS = "/servers/web-1/credentials"


def document(team: Service) -> HostDocument:
    """The document of web-1's host now."""
    signed = documents.signed(team.instance, 1)
    assert signed is not None
    return host_document.decode(signed.text)


def opening(team: Service) -> set[str]:
    """The fingerprints that open web-1 now."""
    return {parse(entry.public_key).fingerprint for entries in document(team).users.values() for entry in entries}


@pytest.fixture
def lines(team: Service) -> dict[str, str]:
    """Keys on web-1: alice's and bob's own by grants, one that is nobody's, one to break glass with."""
    found = {name: fresh_line() for name in ("alice", "bob", "robot", "vault")}
    for name, token in (("alice", ALICE), ("bob", BOB)):
        call(team, "POST", "/people/me/keys", {"public_key": found[name]}, token=token, status=201)
        call(team, "POST", "/grants", {"user": name, "server": "web-1", "system_user": "deploy"}, status=201)
    for name in ("robot", "vault"):
        body = {"label": name, "username": "deploy", "public_key": found[name], "break_glass": name == "vault"}
        call(team, "POST", KEYS, body, status=201)
    return found


def prints(lines: dict[str, str], *names: str) -> set[str]:
    """Their fingerprints."""
    return {parse(lines[name]).fingerprint for name in names}


def confirm(team: Service, path: str, token: str, status: int = 204) -> None:
    """Confirm a key."""
    answer = team.call("POST", f"/api/keyrack/v1{path}/confirm", token=token)
    assert answer.status_code == status, answer.text


def test_frozen_keys_wait_for_their_owners_and_break_glass_keys_still_open(
    team: Service, lines: dict[str, str]
) -> None:
    everything = prints(lines, *lines)
    enrol(team)
    before = call(team, "POST", "/freezes", {"preview": True}, status=202)
    assert (before["id"], before["keys"], before["break_glass"]) == (None, 4, 1)
    assert opening(team) == everything
    made = call(team, "POST", "/freezes", {"reason": "a laptop was stolen"}, status=202)
    assert (made["done"], [one["server"] if "server" in one else one["server_name"] for one in made["servers"]]) == (
        False,
        ["web-1"],
    )
    assert opening(team) == prints(lines, "vault")
    why = "Keys of alice are frozen on web-1: they open no new session until somebody confirms them."
    asked = call(team, "GET", "/access?user=alice")
    assert (asked["items"], asked["note"]) == ([], why)
    listed = {one["label"]: one["frozen"] for one in call(team, "GET", KEYS)["items"]}
    assert listed == {"robot": True, "vault": False}
    assert {one["frozen"] for one in call(team, "GET", "/user-keys")["items"]} == {True}
    tell(team)
    assert call(team, "GET", f"/freezes/{made['id']}")["done"]
    alice, bob = (call(team, "GET", "/people/me/keys", token=one)["items"][0]["id"] for one in (ALICE, BOB))
    robot = next(one["id"] for one in call(team, "GET", KEYS)["items"] if one["label"] == "robot")
    confirm(team, f"/keys/{bob}", ALICE, status=404)
    confirm(team, f"/keys/{bob}", OLGA, status=404)
    confirm(team, f"/keys/{alice}", ALICE)
    assert opening(team) == prints(lines, "vault", "alice")
    confirm(team, f"/credentials/{robot}", OLGA)
    assert opening(team) == prints(lines, "vault", "alice", "robot")
    assert not any(one["frozen"] for one in call(team, "GET", KEYS)["items"])
    # What is entered from now on is not meant.
    new = fresh_line()
    call(team, "POST", KEYS, {"label": "new", "username": "deploy", "public_key": new}, status=201)
    assert parse(new).fingerprint in opening(team)
    assert team.call("DELETE", f"/api/keyrack/v1/freezes/{made['id']}", token=OLGA).status_code == 204
    assert opening(team) == everything | {parse(new).fingerprint}
    call(team, "DELETE", f"/freezes/{made['id']}", status=409)
    (listed,) = call(team, "GET", "/freezes")["items"]
    assert (listed["reason"], listed["ended_by"]) == ("a laptop was stolen", "olga")


def test_open_sessions_of_a_frozen_key_go_on_and_git_refuses_new_ones(team: Service, lines: dict[str, str]) -> None:
    (frozen,) = prints(lines, "alice")
    held = git.holder_of(team.instance, frozen)
    assert held is not None
    assert not held.frozen
    call(team, "POST", "/freezes", {"user": "alice"}, status=202)
    assert call(team, "GET", "/people/me/keys", token=ALICE)["items"][0]["frozen"]
    assert not call(team, "GET", "/people/me/keys", token=BOB)["items"][0]["frozen"]
    held = git.holder_of(team.instance, frozen)
    assert held is not None
    assert held.frozen
    assert git.public_key_of(team.instance, frozen) is None
    sent = document(team)
    session = LoginSession(1, 1, "deploy", "203.0.113.7", 22, frozen)
    assert Rights(sent).end_of(session) > 0
    assert not Rights(sent).is_revoked(session)
    assert Rights(sent._replace(frozen={})).end_of(session) == 0


@pytest.mark.parametrize(
    ("body", "left"),
    [({"user": "alice"}, ("bob", "robot", "vault")), ({"server": "web-1"}, ("vault",)), ({"server": 1}, ("vault",))],
)
def test_a_freeze_is_for_a_person_or_a_server(
    team: Service, lines: dict[str, str], body: dict[str, Any], left: tuple[str, ...]
) -> None:
    looked = call(team, "POST", "/freezes", {**body, "preview": True}, status=202)
    made = call(team, "POST", "/freezes", body, status=202)
    for shown in (looked, made, call(team, "GET", "/freezes")["items"][0]):
        assert (shown["user"], shown["server"]) == (("alice", None) if "user" in body else (None, "web-1"))
    assert opening(team) == prints(lines, *left)
    listed = {one["label"]: one["frozen"] for one in call(team, "GET", KEYS)["items"]}
    assert listed == {"robot": "robot" not in left, "vault": False}
    # The end of a later one leaves what the one before froze.
    later = call(team, "POST", "/freezes", {}, status=202)
    assert opening(team) == prints(lines, "vault")
    call_gone = team.call("DELETE", f"/api/keyrack/v1/freezes/{later['id']}", token=OLGA)
    assert call_gone.status_code == 204
    assert opening(team) == prints(lines, *left)
    team.call("DELETE", f"/api/keyrack/v1/freezes/{made['id']}", token=OLGA)
    assert opening(team) == prints(lines, *lines)


def test_a_frozen_key_with_more_rights_is_not_confirmed_by_a_token_with_fewer(team: Service) -> None:
    line = fresh_line()
    call(team, "PUT", "/people/robot", {"kind": "service", "policies": ["codeartsrepo::*", "servers:*"]})
    call(team, "PUT", "/people/helper", {"policies": ["people:*"]})
    tokens = {
        name: call(team, "POST", "/tokens", {"user": name, "name": "all", "scopes": ["*"]}, status=201)["token"]
        for name in ("robot", "helper")
    }
    key = call(team, "POST", "/people/me/keys", {"public_key": line}, token=tokens["robot"], status=201)
    call(team, "POST", "/grants", {"user": "robot", "server": "web-1", "system_user": "deploy"}, status=201)
    call(team, "POST", "/freezes", {"user": "robot"}, status=202)
    confirm(team, f"/keys/{key['id']}", tokens["helper"], 403)
    assert opening(team) == set()
    confirm(team, f"/keys/{key['id']}", OLGA)
    assert opening(team) == {parse(line).fingerprint}


def test_only_known_users_and_servers_can_be_frozen_and_only_by_admins(team: Service, lines: dict[str, str]) -> None:
    for body, status in (
        ({"user": "nobody"}, 422),
        ({"server": "nowhere"}, 404),
        ({"user": "alice", "server": "web-1"}, 422),
        ({"user": "victor"}, 422),
    ):
        call(team, "POST", "/freezes", body, status=status)
    call(team, "POST", "/freezes", {}, token=ALICE, status=403)
    call(team, "POST", "/freezes", {}, token="token-of-victor", status=202)
    assert opening(team) == prints(lines, *lines)


@pytest.mark.parametrize("path", ["/freezes", "/people/bob/offboard"])
def test_a_preview_refuses_the_reason_that_would_be_refused(team: Service, path: str) -> None:
    """Whoever looked first and then goes on is not told only then."""
    for preview in (True, False):
        refused = call(team, "POST", path, {"reason": "a\x1b[31mb", "preview": preview}, status=422)
        assert refused["error"]["field"] == "reason"
