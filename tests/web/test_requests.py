"""Access that is asked for and approved, and keys that are claimed, over HTTP: what opens, and what is refused."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from keyrack.core.hosts import documents
from keyrack.core.keys import requests
from tests.services import STRANGERS, TEAM, Service
from tests.web.test_native import OLGA, call

ALICE, BOB, MALLORY = "token-of-alice", "token-of-bob", "token-of-mallory"
ADMIN = """
[[users]]
name = "adam"
role = "admin"
password = "adam's password"
tokens = [{ name = "root", token = "token-of-adam", scopes = ["*"] }]
"""
ADAM = "token-of-adam"
WANTED = {"server": "web-1", "system_user": "deploy", "duration": "1h", "reason": "the release"}


def on_host(team: Service) -> dict[str, Any]:
    """The users and keys in the document of web-1."""
    signed = documents.signed(team.instance, 1)
    assert signed is not None
    delivered: dict[str, Any] = json.loads(signed.text)["users"]
    return delivered


def key_of(folder: Path, *options: str) -> tuple[Path, str]:
    """A new pair: its file and its public line."""
    file = folder / "key"
    subprocess.run(("ssh-keygen", "-q", *options, "-N", "", "-C", "laptop", "-f", str(file)), check=True)
    return file, file.with_suffix(".pub").read_text()


def test_two_other_people_must_approve_a_request(team: Service) -> None:
    team.apply(TEAM + ADMIN)
    rule = call(team, "PUT", "/request-rules/production", {"approvers": 2, "tag": "web", "max_duration": "2h"})
    assert (rule["approvers"], rule["max_duration"]) == (2, "2h")
    mine = call(team, "POST", "/requests", WANTED, token=ADAM, status=201)
    assert (mine["state"], mine["approvers"], mine["user"]) == ("pending", 2, "adam")
    path = f"/requests/{mine['id']}/approve"
    assert call(team, "POST", path, token=ADAM, status=403)["error"]["code"] == "own-request"
    assert call(team, "POST", path, token=ALICE, status=403)["error"]["code"] == "not-allowed"
    assert call(team, "POST", path)["state"] == "pending"
    assert call(team, "POST", path, status=409)["error"]["code"] == "approved-already"
    assert call(team, "GET", "/grants")["total"] == 0
    asked = call(team, "POST", "/requests", WANTED, token=ALICE, status=201)
    call(team, "POST", f"/requests/{asked['id']}/approve", token=ADAM)
    done = call(team, "POST", f"/requests/{asked['id']}/approve")
    assert (done["state"], done["decided_by"]) == ("approved", "olga")
    given = call(team, "GET", "/grants")["items"]
    assert [(one["id"], one["user"], one["server"]) for one in given] == [(done["grant_id"], "alice", "web-1")]
    assert given[0]["expires_at"]
    assert call(team, "POST", f"/requests/{asked['id']}/deny", status=409)["error"]["code"] == "not-pending"
    events = [one["summary"] for one in call(team, "GET", "/events")["items"]]
    assert any("alice asks to log in as deploy on web-1 for 1h: the release" in one for one in events)


def test_a_rule_is_for_tags_of_its_own_workspace(team: Service) -> None:
    call(team, "PUT", "/request-rules/strict", {"approvers": 2, "tag": "vault"})
    accounts = 'system_users = ["deploy"]'
    team.apply(STRANGERS.replace(accounts, f'{accounts}\ntags = ["web", "vault"]'))
    wanted = {**{name: value for name, value in WANTED.items() if name != "server"}, "tag": "web"}
    assert call(team, "POST", "/requests", wanted, token=ALICE, status=201)["approvers"] == 1


def test_each_decision_on_a_request_is_shown_with_its_reason(team: Service) -> None:
    team.apply(TEAM + ADMIN)
    call(team, "PUT", "/request-rules/all", {"approvers": 2})
    asked = call(team, "POST", "/requests", WANTED, token=ALICE, status=201)
    path = f"/requests/{asked['id']}/approve"
    assert call(team, "POST", path, {"reason": 5}, status=422)["error"]["field"] == "reason"
    assert call(team, "POST", path, {"reason": "x" * 1001}, status=422)["error"]["field"] == "reason"
    first = call(team, "POST", path, {"reason": "it was tried on staging"})
    assert (first["state"], first["approved_by"], first["decision_reason"]) == ("pending", ["olga"], None)
    done = call(team, "POST", path, {"reason": "go on"}, token=ADAM)
    assert (done["state"], done["approved_by"], done["decision_reason"]) == ("approved", ["olga", "adam"], "go on")
    denied = call(team, "POST", "/requests", WANTED, token=BOB, status=201)
    call(team, "POST", f"/requests/{denied['id']}/deny", {"reason": "not today"})
    listed = call(team, "GET", "/requests", token=ALICE)["items"] + call(team, "GET", "/requests", token=BOB)["items"]
    assert [one["decision_reason"] for one in listed] == ["go on", "not today"]
    events = " ".join(one["summary"] for one in call(team, "GET", "/events")["items"])
    for said in ("1 of 2 approvals; olga says: it was tried on staging", "adam says: go on", "olga says: not today"):
        assert said in events


def test_an_approval_by_somebody_who_lost_the_right_does_not_count(team: Service) -> None:
    team.apply(TEAM + ADMIN)
    call(team, "PUT", "/request-rules/all", {"approvers": 2})
    asked = call(team, "POST", "/requests", WANTED, token=ALICE, status=201)
    call(team, "POST", f"/requests/{asked['id']}/approve", token=ADAM)
    team.apply(TEAM + ADMIN.replace('"admin"', '"member"'))
    assert call(team, "POST", f"/requests/{asked['id']}/approve")["state"] == "pending"
    assert call(team, "GET", "/grants")["total"] == 0


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"duration": "2m"}, "duration", "write 2min for minutes, or 60d"),
        ({"duration": "2026-12-24T18:00"}, "duration", "names no zone"),
        ({"duration": "2020-01-01T00:00:00Z"}, "duration", "past"),
        ({"duration": "soon"}, "duration", "90min"),
        ({"duration": "3h"}, "duration", "2h at most"),
        ({"server": "nowhere"}, "server", "no such server"),
        ({"tag": "web"}, "server", "either a server or a tag"),
        ({"system_user": "root2"}, "system_user", "root2"),
        ({"reason": ""}, "reason", ""),
    ],
)
def test_a_wrong_request_for_access_is_refused(team: Service, change: dict[str, Any], field: str, words: str) -> None:
    call(team, "PUT", "/request-rules/short", {"max_duration": "2h"})
    error = call(team, "POST", "/requests", WANTED | change, token=ALICE, status=422)["error"]
    assert error["field"] == field
    assert words in error["message"]
    assert call(team, "GET", "/requests")["total"] == 0


def test_asking_twice_for_the_same_access_makes_one_request(team_on_each: Service) -> None:
    """A click too many, or a call that a program sends again, is one request for those who decide."""
    team = team_on_each
    first = call(team, "POST", "/requests", WANTED, token=ALICE, status=201)
    assert call(team, "POST", "/requests", {**WANTED, "server": 1}, token=ALICE, status=201)["id"] == first["id"]
    assert call(team, "GET", "/requests")["total"] == 1
    asked = [one for one in call(team, "GET", "/events")["items"] if "alice asks to log in" in one["summary"]]
    assert len(asked) == 1
    others: tuple[dict[str, Any], ...] = (
        {"server": None, "tag": "web"},
        {"duration": "2h"},
        {"reason": "what came up meanwhile"},
    )
    for other in others:
        assert call(team, "POST", "/requests", WANTED | other, token=ALICE, status=201)["id"] != first["id"]
    assert call(team, "POST", "/requests", WANTED, token=BOB, status=201)["id"] != first["id"]
    call(team, "POST", f"/requests/{first['id']}/deny")
    assert call(team, "POST", "/requests", WANTED, token=ALICE, status=201)["id"] != first["id"]


def test_members_see_and_cancel_their_own(team: Service) -> None:
    mine = call(team, "POST", "/requests", WANTED, token=ALICE, status=201)
    call(team, "POST", "/requests", WANTED, token=BOB, status=201)
    assert [one["user"] for one in call(team, "GET", "/requests", token=ALICE)["items"]] == ["alice"]
    assert call(team, "GET", "/requests?state=pending")["total"] == 2
    call(team, "POST", f"/requests/{mine['id']}/cancel", token=BOB, status=404)
    assert call(team, "POST", f"/requests/{mine['id']}/cancel", token=ALICE)["state"] == "cancelled"
    call(team, "POST", f"/requests/{mine['id']}/approve", status=409)


def test_requests_asked_and_cancelled_are_bounded(team: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "MAX_PER_DAY", 3)
    for _ in range(3):
        mine = call(team, "POST", "/requests", WANTED, token=ALICE, status=201)
        call(team, "POST", f"/requests/{mine['id']}/cancel", token=ALICE)
    refused = team.call("POST", "/api/keyrack/v1/requests", token=ALICE, json=WANTED)
    assert refused.status_code in (409, 422, 429), refused.text
    assert "within a day" in refused.json()["error"]["message"]
    call(team, "POST", "/requests", WANTED, token=BOB, status=201)


KINDS = [("-t", "ed25519"), ("-t", "ecdsa", "-b", "384"), ("-t", "rsa", "-b", "2048")]


def sign(folder: Path, file: Path, text: str, namespace: str = "keyrack-claim") -> str:
    """The signature that ssh-keygen makes."""
    note = folder / "challenge.txt"
    note.write_text(text)
    note.with_suffix(".txt.sig").unlink(missing_ok=True)
    subprocess.run(("ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", file, note), check=True)
    return note.with_suffix(".txt.sig").read_text()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind[1]))
def test_the_user_who_signs_the_challenge_gets_the_key(team: Service, tmp_path: Path, kind: tuple[str, ...]) -> None:
    file, line = key_of(tmp_path, *kind)

    def asked(token: str) -> dict[str, Any]:
        made: dict[str, Any] = call(team, "POST", "/keys/challenge", {"public_key": line}, token=token, status=201)
        return made

    def claim(token: str, text: str, signature: str, status: int) -> Any:
        body = {"public_key": line, "challenge": text, "signature": signature, "title": "mine"}
        return call(team, "POST", "/keys/claim", body, token=token, status=status)

    text = asked(BOB)["challenge"]
    assert claim(BOB, text, sign(tmp_path, file, text), 201)["user"] == "bob"
    call(team, "POST", "/grants", {"user": "bob", "server": "web-1", "system_user": "deploy"}, status=201)
    assert on_host(team)
    first, second = asked(ALICE), asked(ALICE)
    assert "bob" not in str(first)
    assert claim(ALICE, first["challenge"], sign(tmp_path, file, first["challenge"], "git"), 403)
    held = sign(tmp_path, file, first["challenge"])
    assert claim(ALICE, first["challenge"], held, 422)["error"]["code"] == "challenge-unknown"
    text = second["challenge"]
    good = sign(tmp_path, file, text)
    assert claim(BOB, text, good, 422)["error"]["code"] == "challenge-unknown"
    assert claim(ALICE, text, good, 201)["user"] == "alice"
    assert claim(ALICE, text, good, 422)["error"]["code"] == "challenge-unknown"
    assert [one["user"] for one in call(team, "GET", "/user-keys")["items"]] == ["alice"]
    assert not on_host(team)
    events = [one["summary"] for one in call(team, "GET", "/events")["items"]]
    assert any(one.startswith("SSH key mine (") and "of bob was claimed" in one for one in events)
    assert any(one.startswith("alice claimed SSH key SHA256:") for one in events)


def test_a_wrong_signature_claims_no_key(team: Service, tmp_path: Path) -> None:
    file, line = key_of(tmp_path, "-t", "ed25519")
    asked = {"public_key": line}
    call(team, "POST", "/keys/challenge", asked, token=MALLORY, status=403)
    text = call(team, "POST", "/keys/challenge", asked, token=ALICE, status=201)["challenge"]
    good = sign(tmp_path, file, text)
    for body, code in (
        ({"challenge": "x", "signature": good}, "invalid"),
        ({"challenge": text.replace("alice", "bob"), "signature": "nothing"}, "signature-malformed"),
    ):
        refused = call(team, "POST", "/keys/claim", asked | body, token=ALICE, status=422)
        assert refused["error"]["code"] == code
    text = call(team, "POST", "/keys/challenge", asked, token=ALICE, status=201)["challenge"]
    call(
        team,
        "POST",
        "/keys/claim",
        asked | {"challenge": text, "signature": sign(tmp_path, file, text)},
        token=ALICE,
        status=201,
    )
    shown = call(team, "GET", "/user-keys")["items"][0]["fingerprint"]
    call(team, "POST", "/keys/revoke", {"fingerprint": shown, "reason": "stolen"}, token=OLGA)
    text = call(team, "POST", "/keys/challenge", asked, token=BOB, status=201)["challenge"]
    body = asked | {"challenge": text, "signature": sign(tmp_path, file, text)}
    assert call(team, "POST", "/keys/claim", body, token=BOB, status=422)["error"]["code"] == "key-revoked"
