"""CodeArts' API and IAM as their clients see them: over HTTP, with tokens got for passwords."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.services import Service

DATA = Path(__file__).parent.parent / "data"
KEYS = [json.loads(line) for line in (DATA / "keys_valid.jsonl").read_text("utf-8").split("\n") if line]
ED25519 = [key for key in KEYS if key["type"] == "ssh-ed25519"]
EXAMPLE = json.loads((DATA / "published_examples.json").read_text("utf-8"))["codearts"]
MISSING = {"error_code": "CH.000404", "error_msg": "There is no such SSH key."}


def call(service: Service, method: str, path: str, token: str = "token-of-alice", **more: Any) -> httpx2.Response:
    """One request with X-Auth-Token."""
    return service.call(method, path, headers={"X-Auth-Token": token, **more.pop("headers", {})}, **more)


def add(service: Service, token: str = "token-of-alice", **body: Any) -> httpx2.Response:
    """Register a key of one's own."""
    return call(service, "POST", "/v4/user/keys", token, json=body)


def sign_in(service: Service, name: str, password: str, domain: str = "acme", **auth: Any) -> httpx2.Response:
    """Ask for a token with a password."""
    user = {"name": name, "password": password, "domain": {"name": domain}}
    identity = {"methods": ["password"], "password": {"user": user}}
    return service.call("POST", "/v3/auth/tokens", json={"auth": {"identity": identity, **auth}})


def test_published_example(team: Service) -> None:
    answer = call(team, "POST", EXAMPLE["request"]["path"], json=EXAMPLE["request"]["body"])
    assert answer.status_code == EXAMPLE["response"]["status"]
    body = answer.json()
    assert set(body) == set(EXAMPLE["response"]["body"])
    assert isinstance(body["id"], int)
    assert (body["title"], body["key"]) == (12312, None)
    assert type(body["title"]) is int
    # What is kept is text, and lists answer it.
    assert [key["title"] for key in call(team, "GET", EXAMPLE["request"]["path"]).json()["keys"]] == ["12312"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", body["created_at"])


def test_published_refusal(team: Service) -> None:
    answer = call(team, "POST", "/v4/user/keys", "a token that never was", json=EXAMPLE["request"]["body"])
    assert (answer.status_code, answer.json()) == (
        EXAMPLE["unauthorized"]["status"],
        EXAMPLE["unauthorized"]["body"],
    )


@pytest.mark.parametrize("headers", [{}, {"X-Auth-Token": ""}])
def test_a_request_without_credentials_is_answered_401(team: Service, headers: dict[str, str]) -> None:
    """Empty it is as with curl -H "X-Auth-Token: $TOKEN" where TOKEN is not set: no token that has expired."""
    answer = team.call("GET", "/v4/user/keys", headers=headers)
    assert (answer.status_code, answer.json()["error_code"]) == (401, "DEV.00000001")


def test_a_password_gets_a_token_that_works(team: Service) -> None:
    answer = sign_in(team, "alice", "alice's password", scope={"project": {"name": "cn-north-4"}})
    assert answer.status_code == 201
    secret, token = answer.headers["X-Subject-Token"], answer.json()["token"]
    assert token["user"]["name"] == "alice"
    assert token["project"]["id"] == "aa2d97d7e62c4b7da3ffdfc11551f878"
    assert token["user"]["domain"]["name"] == "acme"
    assert secret not in answer.text
    line = ED25519[0]["line"].strip()
    added = add(team, secret, title="desk", key=line).json()
    assert (added["title"], added["key"]) == ("desk", line)
    listed = call(team, "GET", "/v4/user/keys", secret).json()
    assert listed == {"keys": [added], "total": 1}
    deleted = call(team, "DELETE", f"/v4/user/keys/{added['id']}", secret)
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert call(team, "DELETE", f"/v4/user/keys/{added['id']}", secret).json() == MISSING


@pytest.mark.parametrize(
    ("name", "password", "domain"),
    [
        ("alice", "wrong", "acme"),
        ("nobody", "alice's password", "acme"),
        ("alice", "alice's password", "umbrella"),
        ("alice", "alice's password", "no such account"),
        ("alice", "", "acme"),
        ("alice", "x" * 5000, "acme"),
    ],
)
def test_a_wrong_password_gets_no_token(team: Service, name: str, password: str, domain: str) -> None:
    answer = sign_in(team, name, password, domain)
    assert answer.status_code == 401
    assert set(answer.json()["error"]) == {"code", "message", "title"}
    assert "X-Subject-Token" not in answer.headers


@pytest.mark.parametrize("body", [{}, {"auth": 5}, {"auth": {"identity": {"methods": ["password"]}}}, [], "x"])
def test_a_malformed_sign_in_is_400(unchanged_team: Service, body: Any) -> None:
    answer = unchanged_team.call("POST", "/v3/auth/tokens", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, 400)


def test_only_the_owner_of_a_key_is_told_who_has_it(team: Service) -> None:
    line = ED25519[0]["line"].strip()
    first = add(team, title="desk", key=line).json()
    own = add(team, title="again", key=line.split()[0] + "  " + line.split()[1] + " other comment")
    assert (own.status_code, own.json()["error_code"]) == (409, "CH.080002")
    assert "'desk'" in own.json()["error_msg"]
    assert str(first["id"]) in own.json()["error_msg"]
    other = add(team, "token-of-bob", title="mine", key=line)
    assert (other.status_code, other.json()["error_code"]) == (409, "CH.080002")
    assert "alice" not in other.json()["error_msg"]
    assert "desk" not in other.json()["error_msg"]


def test_a_key_of_somebody_else_is_answered_as_a_missing_one(team: Service) -> None:
    key = add(team, title="desk", key=ED25519[0]["line"]).json()["id"]
    for number in (key, 999_999, 2_147_483_648, "abc", "-1", "1.0"):
        answer = call(team, "DELETE", f"/v4/user/keys/{number}", "token-of-bob")
        assert (answer.status_code, answer.json()) == (404, MISSING), number


def test_policies_of_a_user_decide_what_they_may(team: Service) -> None:
    answer = add(team, "token-of-mallory", title="x", key=ED25519[0]["line"])
    assert (answer.status_code, answer.json()["error_code"]) == (403, "CH.004403")
    assert call(team, "GET", "/v4/user/keys", "token-of-audrey").status_code == 200
    assert add(team, "token-of-audrey", title="x", key=ED25519[0]["line"]).status_code == 403


def test_fifty_at_once_leave_one(team: Service) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: add(team, title=f"try {n}", key=ED25519[0]["line"]), range(50)))
    assert sorted(answer.status_code for answer in answers) == [201, *[409] * 49]
    assert call(team, "GET", "/v4/user/keys").json()["total"] == 1


def test_list_newest_first_with_query_and_window(team: Service) -> None:
    for number, key in enumerate(ED25519[:5]):
        assert add(team, title=f"Desk {number}%_", key=key["line"]).status_code == 201
    titles = [key["title"] for key in call(team, "GET", "/v4/user/keys?offset=1&limit=2").json()["keys"]]
    assert titles == ["Desk 3%_", "Desk 2%_"]
    found = call(team, "GET", "/v4/user/keys", params={"query": "desk 4%"}).json()
    assert ([key["title"] for key in found["keys"]], found["total"]) == (["Desk 4%_"], 1)
    assert call(team, "GET", "/v4/user/keys", params={"query": "%"}).json()["total"] == 5
    assert call(team, "GET", "/v4/user/keys", params={"query": "x_"}).json()["total"] == 0


@pytest.mark.parametrize("window", ["limit=0", "limit=101", "limit=-1", "limit=abc", "offset=-1", "offset=2147483648"])
def test_an_offset_or_limit_out_of_range_is_answered_400(unchanged_team: Service, window: str) -> None:
    answer = call(unchanged_team, "GET", f"/v4/user/keys?{window}")
    assert (answer.status_code, answer.json()["error_code"]) == (400, "CH.010001")


@pytest.mark.parametrize("key", ["", "   ", 5, [], {}, "hello", "ssh-ed25519 AAAA", "x" * 6000])
def test_an_invalid_key_is_answered_400(unchanged_team: Service, key: Any) -> None:
    answer = add(unchanged_team, title="x", key=key)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "CH.010001")
    assert call(unchanged_team, "GET", "/v4/user/keys").json()["total"] == 0


def test_titles_round_trip_up_to_a_thousand_characters(team: Service) -> None:
    for title in ("x", "büro 🔑", "t" * 1000, "O'Brien's key"):
        assert add(team, title=title).json()["title"] == title
    refused: tuple[Any, ...] = ("", "  ", "t" * 1001, "a\nb", "a\x00b", True, ["x"])
    for bad in refused:
        assert add(team, title=bad).status_code == 400, bad


def test_unknown_paths_and_methods_stay_in_the_dialect(team: Service) -> None:
    for path in ("/v4", "/v4/nothing", "/v4/user/keys/1/2"):
        answer = call(team, "GET", path)
        assert (answer.status_code, answer.json()["error_code"]) == (404, "CH.000404")
    assert call(team, "PUT", "/v4/user/keys/1").status_code == 405
    assert re.fullmatch("[0-9a-f]{32}", call(team, "GET", "/v4").headers["X-Request-Id"])
