"""Keyrack's own API as an operator's program uses it: what it shows, changes and refuses."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from keyrack import policy
from keyrack.core.hosts import documents, enrolment, reports, servers
from keyrack.core.people import actors
from keyrack.ssh.public_key import parse
from keyrack.store import tables
from keyrack.web.native import api as native
from tests.core.keys_for_tests import fresh_line
from tests.core.test_unmanaged_keys import entry
from tests.services import TEAM, Service, running, settings_for

OLGA = "token-of-olga"
BASE = "/api/keyrack/v1"


def call(
    team: Service, method: str, path: str, body: Any = None, *, token: str | None = OLGA, status: int = 200
) -> Any:
    """One call, its status checked; answers the JSON."""
    answer = team.call(method, BASE + path, token=token, json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def enrol(team: Service) -> None:
    """Give web-1 a host."""
    token = servers.invite(team.instance, actors.system_actor(1), 1)
    enrolment.enrol(team.instance, token, {}, address="192.0.2.10")


def tell(team: Service, *found: dict[str, Any], **more: Any) -> None:
    """Report as web-1's agent that it obeys its newest document."""
    actor = actors.system_actor(1)
    signed = documents.signed(team.instance, 1)
    assert signed is not None
    report = {"revision": signed.revision, "state": "applied", "keys_found": list(found), **more}
    reports.ingest(team.instance, servers.get(team.instance, actor, 1), report)


def put(team: Service, line: str) -> None:
    """Put a key on deploy of web-1 through RunCloud's client."""
    body = {"label": "laptop", "username": "deploy", "publicKey": line}
    assert team.call("POST", "/api/v3/servers/1/ssh/credentials", token=OLGA, json=body).status_code < 300


def tokens_of(team: Service, scope: str) -> str:
    """A token of the owner that holds one scope."""
    more = f'scopes = ["*"] }}, {{ name = "s", token = "scoped-token", scopes = ["{scope}"] }}]'
    team.apply(TEAM.replace('scopes = ["*"] }]', more, 1))
    return "scoped-token"


def test_every_call_names_its_action() -> None:
    assert {endpoint.action for endpoint in native.ENDPOINTS} <= policy.ACTIONS.keys()


def test_a_server_and_how_it_is_held(team: Service) -> None:
    tell(team, facts={"enforcement": "observe"}, problems=["the disk is full"], agent_version="9.9")
    shown = call(team, "GET", "/servers/web-1")
    assert shown == call(team, "GET", "/servers/1")
    assert (shown["mode"], shown["enforcement"], shown["online"]) == ("enforce", "observe", True)
    assert (shown["applied"], shown["agent_version"]) == (shown["wanted"], "9.9")
    assert shown["applied_at"].endswith("Z")
    assert shown["problems"] == ["the disk is full"]
    assert shown["offline_words"] == "keys stay"
    listed = call(team, "GET", "/servers?per_page=1")
    assert ([one["name"] for one in listed["items"]], listed["total"]) == (["web-1"], 1)


def test_an_undone_enforcing_says_why(team: Service) -> None:
    tell(team, facts={"enforcement": "undone", "undone": "sshd greets nobody any more"})
    shown = call(team, "GET", "/servers/web-1")
    assert (shown["mode"], shown["undone"]) == ("observe", "sshd greets nobody any more")


def test_a_key_that_sshd_refuses_says_so_where_it_is_added_and_listed(team: Service) -> None:
    add = {"label": "laptop", "username": "deploy", "public_key": fresh_line()}
    made = call(team, "POST", "/servers/1/credentials", add, status=201)
    assert made["refused"] is None, "its host has not said"
    reported = {
        "deploy": {"keys": {made["fingerprint"]: "it has 1024 bits\x1b[2J", "no fingerprint": "x"}},
        "root": {"why": "PermitRootLogin no"},
        "shop": [],
    }
    tell(team, facts={"enforcement": "enforce", "logins": reported})
    (listed,) = [one for one in call(team, "GET", "/servers/1/credentials")["items"] if one["id"] == made["id"]]
    assert listed["refused"].startswith("sshd refuses deploy: it has 1024 bits")
    assert "\x1b" not in listed["refused"]
    other = call(team, "POST", "/servers/1/credentials", {**add, "label": "b", "public_key": fresh_line()}, status=201)
    assert other["refused"] == ""
    rows = {one["fingerprint"]: one["refused"] for one in call(team, "GET", "/access?server=1")["items"]}
    assert rows[made["fingerprint"]] == listed["refused"]
    assert rows[other["fingerprint"]] == ""
    assert "sshd refuses root: PermitRootLogin no" in call(team, "GET", "/servers/1")["problems"]


def test_mode_and_silence(team: Service) -> None:
    before = call(team, "GET", "/servers/1")["wanted"]
    changed = call(team, "PATCH", "/servers/web-1", {"mode": "observe"})
    assert changed["mode"] == "observe"
    assert changed["wanted"] > before
    rule = {"after_seconds": 3600, "then": "drop-temporary"}
    assert call(team, "PUT", "/servers/1/offline-policy", rule)["items"][0]["offline_after_seconds"] == 3600
    rule = {"after_seconds": 7200, "then": "drop-all"}
    assert (
        call(team, "PUT", "/tags/web/offline-policy", rule)["items"][0]["offline_words"]
        == "after 7200 seconds all keys are dropped"
    )


def test_unmanaged_keys(team: Service) -> None:
    lines = [fresh_line(name) for name in ("one", "two", "three")]
    entries = [entry(line, line=number + 1, options="restrict") for number, line in enumerate(lines)]
    tell(team, *entries)
    path = "/servers/web-1/unmanaged-keys"
    found = {one["comment"]: one for one in call(team, "GET", path)["items"]}
    assert found["one"]["in_force"] is True
    assert (found["one"]["options"], found["one"]["path"]) == ("restrict", entries[0]["path"])
    accepted = call(team, "POST", f"{path}/{found['one']['id']}/accept", {"label": "robot"}, status=201)
    assert (accepted["label"], accepted["fingerprint"]) == ("robot", parse(lines[0]).fingerprint)
    assert call(team, "POST", f"{path}/{found['two']['id']}/ignore")["state"] == "ignored"
    assert call(team, "POST", f"{path}/{found['three']['id']}/remove", status=202)["state"] == "removing"
    assert [one["comment"] for one in call(team, "GET", path)["items"]] == ["three"]
    assert call(team, "GET", f"{path}?state=accepted,ignored,removing")["total"] == 3
    assert call(team, "GET", f"{path}?state=lost", status=422)["error"]["field"] == "state"
    again = call(team, "POST", f"{path}/{found['two']['id']}/accept", {"label": "robot"}, status=409)
    assert again["error"]["field"] == "label"


def test_a_revoked_key_and_its_receipts(team: Service) -> None:
    line = fresh_line()
    fingerprint = parse(line).fingerprint
    enrol(team)
    put(team, line)
    done = call(team, "POST", "/keys/revoke", {"fingerprint": fingerprint})
    assert (done["credentials"], list(done["revisions"])) == (1, ["1"])
    receipts = call(team, "GET", f"/keys/receipts?fingerprint={fingerprint}")
    assert receipts["words"] == "done on 0 of 1 server; not yet on web-1"
    event = call(team, "GET", "/events?search=everywhere:")["items"][0]
    assert not call(team, "GET", f"/events/{event['id']}/receipts")["done"]
    tell(team)
    receipts = call(team, "GET", f"/keys/receipts?fingerprint={fingerprint}")
    assert receipts["done"]
    assert receipts["servers"][0]["acknowledged_at"].endswith("Z")
    assert call(team, "GET", f"/events/{event['id']}/receipts")["done"]


def test_a_revocation_whose_answer_was_lost_may_be_sent_again(team: Service) -> None:
    line = fresh_line()
    wanted = {"fingerprint": parse(line).fingerprint}
    assert call(team, "POST", "/keys/revoke", wanted, status=404)["error"]["code"] == "key-missing"
    enrol(team)
    put(team, line)
    first = call(team, "POST", "/keys/revoke", wanted)
    event = call(team, "GET", "/events")["items"][0]["id"]
    assert call(team, "POST", "/keys/revoke", wanted) == {**first, "credentials": 0}
    assert call(team, "GET", "/events")["items"][0]["id"] == event
    call(team, "POST", "/keys/lift", wanted)
    assert call(team, "POST", "/keys/revoke", wanted, status=404)["error"]["code"] == "key-missing"


def test_sessions(team: Service) -> None:
    session = {
        "server_id": 1,
        "host_session": "s1",
        "username": "deploy",
        "address": "198.51.100.9",
        "fingerprint": "",
        "started_at": team.instance.now(),
        "ending": False,
    }
    team.instance.database.write(lambda connection: connection.execute(insert(tables.sessions).values(session)))
    listed = call(team, "GET", "/servers/web-1/sessions")["items"]
    assert [(one["username"], one["ending"]) for one in listed] == [("deploy", False)]
    assert call(team, "DELETE", f"/servers/web-1/sessions/{listed[0]['id']}", status=202)["ending"] is True


def test_the_enrolment_line_to_paste_is_printed(team: Service) -> None:
    line = call(team, "POST", "/servers/web-1/enrolments", status=201)["line"]
    assert line.startswith(f"curl -fsSL {team.url}/agent/install.sh | KEYRACK_AGENT_TOKEN=")


# A PUT by a name that nobody has in the caller's workspace makes that thing there, whatever others call so.
NAMED_BY_THE_CALLER = ("put_group", "put_person", "put_rule", "put_server")


@pytest.mark.parametrize("endpoint", native.ENDPOINTS, ids=lambda one: f"{one.method} {one.path}")
def test_every_call_refuses_callers_without_the_right(unchanged_team: Service, endpoint: Any) -> None:
    path = endpoint.path
    for name, value in (
        ("server", "1"),
        ("session", "1"),
        ("event", "1"),
        ("tag", "web"),
        ("row", "grant:1"),
        ("freeze", "1"),
        ("webhook", "1"),
        ("credential", "1"),
        ("key", "1"),
        ("grant", "1"),
        ("kind", "github"),
        ("repository", "1"),
        ("username", "deploy"),
    ):
        path = path.replace("{" + name + "}", value)
    body = {
        "change_server": {"mode": "observe"},
        "revoke_key": {"fingerprint": parse(fresh_line()).fingerprint},
        "set_offline_policy_of_server": {"after_seconds": 60, "then": "keep"},
        "set_offline_policy_of_tag": {"after_seconds": 60, "then": "keep"},
        "ask": {"server": "web-1", "system_user": "deploy", "duration": "1h", "reason": "a look"},
        "put_key_source": {"account": "octocat"},
        "put_key_of_person": {"public_key": fresh_line()},
        "freeze_keys": {"user": "alice"},
        "put_repository": {"path": "acme/new"},
        "create_webhook": {"url": "https://alerts.example.org/"},
        "put_webhook": {"url": "https://alerts.example.org/"},
        "renew_credential": {"duration": "1h"},
        "restrict_credential": {"restrictions": {}},
        "renew_key": {"duration": "1h"},
        "renew_grant": {"duration": "1h"},
        "rehearse": {"method": "DELETE", "path": "/grants/1"},
    }.get(endpoint.handler.__name__)
    assert set(call(unchanged_team, endpoint.method, path, body, token=None, status=401)["error"]) == {
        "code",
        "message",
    }
    call(unchanged_team, endpoint.method, path, body, token="nonsense", status=401)
    if endpoint.action in policy.OF_EVERY_MEMBER and "{" not in endpoint.path:
        return  # everybody's own
    if endpoint.handler.__name__ == "list_repositories":
        return  # those that one may see, which are none of a stranger's
    if endpoint.action == "requests:ask":
        call(unchanged_team, endpoint.method, path, body, token="token-of-mallory", status=404)
        return  # somebody else's is as missing as any that nobody has
    call(unchanged_team, endpoint.method, path, body, token="token-of-mallory", status=403)
    if "{" in endpoint.path and endpoint.handler.__name__ not in NAMED_BY_THE_CALLER:
        # Another workspace's things are as missing as any that nobody has.
        call(unchanged_team, endpoint.method, path, body, token="token-of-victor", status=404)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"),
    [
        ("PATCH", "/servers/1", {"mode": "perhaps"}, 422, "mode"),
        ("PATCH", "/servers/1", {"mode": ["observe"]}, 422, "mode"),
        ("PATCH", "/servers/1", {"Mode": "observe"}, 422, "body"),
        ("PATCH", "/servers/1", [], 422, None),
        ("PUT", "/servers/1/offline-policy", {"after_seconds": 5, "then": "keep"}, 422, "after_seconds"),
        ("PUT", "/servers/1/offline-policy", {"after_seconds": True, "then": "keep"}, 422, "after_seconds"),
        ("PUT", "/servers/1/offline-policy", {"after_seconds": 3600, "then": "explode"}, 422, "then"),
        ("PUT", "/tags/nothing-has-it/offline-policy", {"after_seconds": 3600, "then": "keep"}, 404, None),
        ("PUT", "/tags/%00/offline-policy", {"after_seconds": 3600, "then": "keep"}, 422, "path"),
        ("POST", "/keys/revoke", {"fingerprint": "MD5:12"}, 422, "fingerprint"),
        ("POST", "/servers/1/unmanaged-keys/1/accept", {"expires_at": 5}, 404, None),
        ("GET", "/servers/nowhere", None, 404, None),
        ("GET", "/servers/%00", None, 404, None),
        ("GET", "/servers/99999999999", None, 404, None),
        ("POST", "/servers/1/unmanaged-keys/99999999999/ignore", None, 404, None),
        ("GET", "/events/0/receipts", None, 404, None),
        ("GET", "/servers?page=0", None, 422, "page"),
        ("GET", "/servers?per_page=many", None, 422, "per_page"),
        ("GET", "/servers/1/nothing", None, 404, None),
        ("POST", "/servers/1", None, 405, None),
    ],
)
def test_bad_input_is_refused_with_words(
    unchanged_team: Service, method: str, path: str, body: Any, status: int, field: str | None
) -> None:
    error = call(unchanged_team, method, path, body, status=status)["error"]
    assert error.get("field") == field
    assert error["message"]


def test_a_tag_that_no_server_has_is_named_where_hosts_with_it_are_to_change(unchanged_team: Service) -> None:
    rule = {"after_seconds": 3600, "then": "keep"}
    error = call(unchanged_team, "PUT", "/tags/nothing-has-it/offline-policy", rule, status=404)["error"]
    assert error["message"] == "No server has the tag 'nothing-has-it'."


def test_a_token_needs_only_the_action_of_a_call_by_id(team: Service) -> None:
    secret = tokens_of(team, "sessions:read")
    call(team, "GET", "/servers/1/sessions", token=secret)
    call(team, "GET", "/servers/1/unmanaged-keys", token=secret, status=403)
    call(team, "GET", "/servers/1", token=secret, status=403)


def test_requests_are_counted(team_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(team_folder, tmp_path / "data")
    with running(settings_for(tmp_path / "data", "", rate_limit=20)) as team:
        answer = team.call("GET", f"{BASE}/servers", token=OLGA)
        left = int(answer.headers["X-RateLimit-Remaining"])
        assert left < int(answer.headers["X-RateLimit-Limit"])
        for _ in range(left):
            team.call("GET", f"{BASE}/servers/0", token=OLGA)
        refused = team.call("GET", f"{BASE}/servers", token=OLGA)
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) >= 1
    assert refused.json()["error"]["code"] == "too-many-requests"


def test_a_name_that_two_servers_have_is_not_guessed(team: Service) -> None:
    servers.create(team.instance, actors.system_actor(1), name="web-1", address="192.0.2.11")
    assert "one of: 1, 3" in call(team, "PATCH", "/servers/web-1", {"mode": "observe"}, status=409)["error"]["message"]
