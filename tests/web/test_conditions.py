"""Changes that are made only where nobody changed the thing since it was read: ETag, If-Match and If-None-Match."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import httpx2
import pytest

from keyrack.web.native.api import ENDPOINTS
from tests.core.keys_for_tests import fresh_line
from tests.services import Service
from tests.web.test_native import call, tell

OLGA = "token-of-olga"
BASE = "/api/keyrack/v1"


def ask(team: Service, method: str, path: str, body: Any = None, **headers: str) -> httpx2.Response:
    """One call with headers, whose names have _ for -."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return team.call(method, BASE + path, token=OLGA, json=body, headers=named)


def test_a_change_over_one_of_somebody_else_is_refused(team_on_each: Service) -> None:
    team = team_on_each
    made = ask(team, "PUT", "/groups/ops", {"members": ["alice"]})
    seen = ask(team, "GET", "/groups/ops")
    assert made.headers["ETag"] == seen.headers["ETag"]
    other = ask(team, "PUT", "/groups/ops", {"members": ["bob"]}, If_Match=seen.headers["ETag"])
    assert (other.status_code, other.json()["members"]) == (200, ["bob"])
    for method, body in (("PUT", {"members": []}), ("DELETE", None)):
        late = ask(team, method, "/groups/ops", body, If_Match=seen.headers["ETag"])
        assert (late.status_code, late.json()["error"]["code"]) == (412, "changed")
    assert call(team, "GET", "/groups/ops")["members"] == ["bob"]
    (event,) = call(team, "GET", "/events?search=change+what+was+read")["items"]
    assert (event["outcome"], event["actor"]) == ("refused", "olga")
    gone = ask(team, "DELETE", "/groups/ops", If_Match=f'"other", {other.headers["ETag"]}')
    assert gone.status_code == 204
    assert ask(team, "DELETE", "/groups/ops", If_Match="*").status_code == 412
    assert ask(team, "DELETE", "/groups/ops").status_code == 404


def test_one_of_many_changes_at_once_with_the_same_etag_is_made(team_on_each: Service) -> None:
    team = team_on_each
    tag = ask(team, "PUT", "/groups/ops", {"members": []}).headers["ETag"]
    names = ("alice", "bob", "mallory", "audrey") * 2
    with ThreadPoolExecutor(8) as pool:
        ends = list(
            pool.map(lambda name: ask(team, "PUT", "/groups/ops", {"members": [name]}, If_Match=tag).status_code, names)
        )
    assert sorted(ends) == [200, *(412,) * 7]


def test_every_field_that_a_change_sets_is_shown() -> None:
    """Or its tag would stay, and whoever changes it next would not hear that somebody else did."""
    shown = {one.path: one.answers for one in ENDPOINTS if one.method == "GET" and one.asks is None and one.answers}
    # duration becomes expires_at, server server_id; accounts have paths of their own; secrets are shown nowhere.
    elsewhere = {"duration", "server", "system_users"}
    lacking = {
        f"{one.method} {one.path}": more
        for one in ENDPOINTS
        if one.method in ("PUT", "PATCH") and one.takes and one.path in shown and one.path != "/webhooks"
        if (more := set(one.takes.model_fields) - set(shown[one.path].model_fields) - elsewhere)
    }
    assert lacking == {}


def test_a_servers_provider_is_changed_by_one_of_two(team: Service) -> None:
    tag = ask(team, "GET", "/servers/web-1").headers["ETag"]
    made = ask(team, "PUT", "/servers/web-1", {"provider": "hetzner"}, If_Match=tag)
    assert (made.status_code, made.json()["provider"]) == (200, "hetzner")
    assert ask(team, "PUT", "/servers/web-1", {"provider": "other"}, If_Match=tag).status_code == 412


def test_a_condition_that_cannot_be_checked_is_refused(team: Service) -> None:
    grant = call(team, "POST", "/grants", {"user": "alice", "server": "web-1", "system_user": "deploy"}, status=201)
    seen = ask(team, "GET", f"/grants/{grant['id']}")
    for path, body in (
        (f"/grants/{grant['id']}/renew", {"duration": "1h"}),
        ("/grants", {"user": "bob", "server": "web-1", "system_user": "deploy"}),
    ):
        refused = ask(team, "POST", path, body, If_Match='"another"')
        assert (refused.status_code, refused.json()["error"]["field"]) == (422, "If-Match")
    assert ask(team, "GET", f"/grants/{grant['id']}").headers["ETag"] == seen.headers["ETag"]
    assert call(team, "GET", "/grants")["total"] == 1


def test_if_none_match_refuses_to_replace_what_exists(team: Service) -> None:
    for status in (200, 412):
        assert ask(team, "PUT", "/groups/dev", {"members": []}, If_None_Match="*").status_code == status
    refused = ask(team, "PUT", "/groups/dev", {"members": []}, If_None_Match="x")
    assert (refused.status_code, refused.json()["error"]["field"]) == (422, "If-None-Match")


WANTED = {None: True, "*": True, "TAG": True, '"x", TAG': True, '"x"': False, "W/TAG": False, 'W/TAG, "x"': False}
UNWANTED = {None: True, "*": False, "TAG": False, "W/TAG": False, '"x",W/TAG': False, '"x"': True, 'W/"x", "y"': True}


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "GET", "HEAD"])
def test_if_match_is_checked_before_if_none_match(team: Service, method: str) -> None:
    """Each pair against what is there and, without an answer for GET, against what is not (RFC 9110, 13.2.2)."""
    body = {"PUT": {"members": []}, "PATCH": {"address": "203.0.113.9"}}.get(method)
    thing, nothing = ("/servers/web-1", "/servers/none") if method == "PATCH" else ("/groups/ops", "/groups/none")
    for (wanted, matches), (unwanted, differs) in product(WANTED.items(), UNWANTED.items()):
        if thing == "/groups/ops":
            ask(team, "PUT", thing, {"members": []})
        tag = ask(team, "GET", thing).headers["ETag"]
        sent = {"If_Match": wanted, "If_None_Match": unwanted}
        headers = {name: value.replace("TAG", tag) for name, value in sent.items() if value is not None}
        reads = method in ("GET", "HEAD")
        passed = 412 if not matches else 200 if differs else 304 if reads else 412
        answer = ask(team, method, thing, body, **headers)
        assert answer.status_code == (204 if (method, passed) == ("DELETE", 200) else passed), headers
        if reads and thing == "/groups/ops" and passed != 412:
            assert answer.headers["ETag"] == tag
        if method == "PUT":
            made = ask(team, "PUT", nothing, body, **headers)
            assert made.status_code == (200 if wanted is None else 412), headers
            ask(team, "DELETE", nothing)
        elif reads or headers:
            there = ask(team, method, nothing, body, **headers).status_code
            assert there == (404 if reads or wanted is None else 412), headers


def test_a_condition_may_be_sent_in_several_header_lines(team: Service) -> None:
    tag = ask(team, "PUT", "/groups/ops", {"members": []}).headers["ETag"]
    for lines, status in ((('"x"', tag), 200), (('"x"', '"y"'), 412), (("*", tag), 422)):
        answer = httpx2.put(
            f"{team.url}{BASE}/groups/ops",
            json={"members": []},
            headers=[("Authorization", f"Bearer {OLGA}"), *(("If-Match", line) for line in lines)],
        )
        assert answer.status_code == status, lines


def test_an_unchanged_resource_is_answered_304(team: Service) -> None:
    seen = ask(team, "GET", "/people/alice")
    again = ask(team, "GET", "/people/alice", If_None_Match=seen.headers["ETag"])
    assert (again.status_code, again.content) == (304, b"")
    call(team, "PATCH", "/people/alice", {"policies": []})
    assert ask(team, "GET", "/people/alice", If_None_Match=seen.headers["ETag"]).status_code == 200


def test_a_hosts_report_does_not_change_the_etag_of_its_server(team: Service) -> None:
    seen = ask(team, "GET", "/servers/web-1")
    tell(team, agent_version="9.9", problems=["the disk is full"])
    assert ask(team, "GET", "/servers/1").json()["agent_version"] == "9.9"
    named = ask(team, "PATCH", "/servers/web-1", {"name": "web-one"}, If_Match=seen.headers["ETag"])
    assert named.status_code == 200
    assert ask(team, "PATCH", "/servers/1", {"name": "x"}, If_Match=seen.headers["ETag"]).status_code == 412


def test_everything_that_can_be_changed_or_deleted_has_an_etag(team: Service) -> None:
    """Each thing shows its tag, as making it did; another one's is no condition that holds, and its own is."""
    line = fresh_line()
    made = {
        "/servers/1/credentials": {"label": "desk", "username": "deploy", "public_key": line},
        "/people/me/keys": {"title": "desk", "public_key": fresh_line()},
        "/grants": {"user": "alice", "tag": "nobodys", "system_user": "deploy"},
        "/tokens": {"name": "ci", "scopes": ["servers:read"]},
        "/webhooks": {"url": "https://alerts.example.org/"},
    }
    seen = {}
    for path, body in made.items():
        answer = ask(team, "POST", path, body)
        seen[f"{path}/{answer.json()['id']}"] = answer.headers["ETag"]
        assert answer.headers["Location"] == f"{BASE}{path}/{answer.json()['id']}"
    named = {
        "/groups/ops": {"members": ["alice"]},
        "/request-rules/production": {"approvers": 2},
        "/people/alice/key-sources/github": {"account": "octocat"},
        "/groups/ops/members/bob": None,
    }
    for path, body in named.items():
        assert ask(team, "PUT", path, body, If_None_Match="*").status_code == 200, path
        assert ask(team, "PUT", path, body, If_None_Match="*").status_code == 412, path
        seen[path] = ask(team, "GET", path).headers["ETag"]
    for path in reversed(seen):
        assert ask(team, "GET", path).headers["ETag"] == seen[path], path
        late = ask(team, "DELETE", path, If_Match='"another"')
        assert (late.status_code, late.json()["error"]["code"]) == (412, "changed"), path
        assert ask(team, "DELETE", path, If_Match=seen[path]).status_code == 204, path
        gone = ask(team, "GET", path)
        assert gone.status_code == 404, path
        assert gone.json()["error"]["hint"], path
    policy = ask(team, "GET", "/servers/web-1/offline-policy").headers["ETag"]
    new = {"after_seconds": 3600, "then": "drop-all"}
    assert ask(team, "PUT", "/servers/web-1/offline-policy", new, If_Match=policy).status_code == 200
    assert ask(team, "PUT", "/servers/web-1/offline-policy", new, If_Match=policy).status_code == 412


def test_an_etag_made_weak_by_a_proxy_is_refused_as_weak(team: Service) -> None:
    tag = ask(team, "PUT", "/groups/ops", {"members": []}).headers["ETag"]
    for sent in (f"W/{tag}", f'W/{tag}, W/"x,y"'):
        late = ask(team, "PUT", "/groups/ops", {"members": ["bob"]}, If_Match=sent)
        assert (late.status_code, late.json()["error"]["code"]) == (412, "changed")
        assert "weak" in late.json()["error"]["message"]
    assert ask(team, "PUT", "/groups/ops", {"members": []}, If_Match=f'"x,y", W/"x" ,{tag}').status_code == 200
    assert ask(team, "GET", "/groups/ops", If_None_Match=f'"x,y", W/{tag}').status_code == 304


def test_long_work_says_where_it_goes_on(team: Service) -> None:
    for path, shown in (("/freezes", "/freezes/1"), ("/people/bob/offboard", "/offboardings/1")):
        looked = ask(team, "POST", path, {"preview": True})
        assert (looked.status_code, "Location" in looked.headers) == (202, False)
        begun = ask(team, "POST", path, {})
        assert (begun.status_code, begun.headers["Location"]) == (202, BASE + shown)
        going = team.call("GET", begun.headers["Location"], token=OLGA).json()
        assert going["id"] == 1


def test_headers_that_cannot_be(team: Service) -> None:
    for tag in ("nothing", 'w/"x"', 'W/ "x"', '"x', '"x" "y"', "", ",", ",".join(['"x"'] * 30)):
        refused = ask(team, "PATCH", "/people/alice", {"disabled": True}, If_Match=tag)
        assert (refused.status_code, refused.json()["error"]["field"]) == (422, "If-Match"), tag
    policy = {"after_seconds": 3600, "then": "keep"}
    nowhere = ask(team, "PUT", "/tags/web/offline-policy", policy, If_Match='"x"')
    assert nowhere.status_code == 422
    assert team.call("PUT", f"{BASE}/groups/ops", json={}, headers={"If-Match": '"x"'}).status_code == 401
    denied = {"Authorization": "Bearer token-of-alice", "If-Match": '"x"'}
    assert team.call("PUT", f"{BASE}/groups/ops", json={}, headers=denied).status_code == 403


def test_a_post_that_counts_on_being_sent_again_is_refused(team: Service) -> None:
    """Rather than done twice, as by a client that got no answer and trusts the header."""
    sent = {"name": "ci", "scopes": ["servers:read"]}
    refused = ask(team, "POST", "/tokens", sent, Idempotency_Key='"8e03978e-40d5-43dd-bc93-6894a57f9324"')
    assert (refused.status_code, refused.json()["error"]["field"]) == (422, "Idempotency-Key")
    assert [one["name"] for one in call(team, "GET", "/tokens")["items"] if one["name"] == "ci"] == []
    # A PUT may be sent again anyway.
    assert ask(team, "PUT", "/groups/ops", {"members": []}, Idempotency_Key="x").status_code == 200
