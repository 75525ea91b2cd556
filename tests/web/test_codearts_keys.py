"""CodeArts' user keys under pressure: duplicates, races on both databases, long and foreign text, lists in motion."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.core.keys_for_tests import fresh_line
from tests.services import STRANGERS, TEAM, Service, running, settings_for

RSA_8192 = (Path(__file__).parent.parent / "data" / "rsa_8192.pub").read_text("utf-8").strip()


def call(service: Service, method: str, path: str, token: str = "token-of-alice", **more: Any) -> httpx2.Response:
    """One request with X-Auth-Token."""
    return service.call(method, path, headers={"X-Auth-Token": token}, **more)


def add(service: Service, token: str = "token-of-alice", **body: Any) -> httpx2.Response:
    """Register a key of one's own."""
    return call(service, "POST", "/v4/user/keys", token, json=body)


@pytest.fixture
def everywhere(database_url: str, tmp_path: Path) -> Iterator[Service]:
    """The team and the strangers, once on each database."""
    with running(settings_for(tmp_path / "data", database_url)) as service:
        service.apply(TEAM)
        service.apply(STRANGERS)
        yield service


def test_fifty_adds_of_one_key_leave_one(everywhere: Service) -> None:
    line = fresh_line()
    who = ["token-of-alice", "token-of-bob", "token-of-olga", "token-of-victor"]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: add(everywhere, who[n % 4], title=f"try {n}", key=line), range(50)))
    assert sorted(answer.status_code for answer in answers) == [201, *[409] * 49]
    assert {answer.json()["error_code"] for answer in answers if answer.status_code == 409} == {"CH.080002"}
    totals = [call(everywhere, "GET", "/v4/user/keys", token).json()["total"] for token in who]
    assert sum(totals) == 1


def test_a_key_becomes_a_users_or_a_repositorys_never_both(everywhere: Service) -> None:
    everywhere.apply('[workspace]\nname = "acme"\n[[repositories]]\nid = 1\npath = "acme/one"\n')
    everywhere.apply('[workspace]\nname = "umbrella"\n[[repositories]]\nid = 2\npath = "umbrella/two"\n')
    for _ in range(10):
        line = fresh_line()
        body = {"application": "ci", "can_push": False, "key": line, "key_title": "ci"}

        def attempt(number: int, line: str = line, body: dict[str, Any] = body) -> httpx2.Response:
            if number == 0:
                return add(everywhere, title="mine", key=line)
            token = ("token-of-olga", "token-of-victor")[number - 1]
            return call(everywhere, "POST", f"/v2/repositories/{number}/deploy-keys", token, json=body)

        with ThreadPoolExecutor(3) as pool:
            user, one, two = (answer.status_code for answer in pool.map(attempt, range(3)))
        assert (user, one, two) in ((201, 409, 409), (409, 200, 200))


def test_a_deploy_key_of_two_workspaces_is_free_once_both_deleted_it(everywhere: Service) -> None:
    everywhere.apply('[workspace]\nname = "acme"\n[[repositories]]\nid = 1\npath = "acme/one"\n')
    everywhere.apply('[workspace]\nname = "umbrella"\n[[repositories]]\nid = 2\npath = "umbrella/two"\n')
    owners = {1: "token-of-olga", 2: "token-of-victor"}
    for _ in range(5):
        line = fresh_line()
        body = {"application": "ci", "can_push": False, "key": line, "key_title": "ci"}
        held = {
            number: call(everywhere, "POST", f"/v2/repositories/{number}/deploy-keys", token, json=body).json()
            for number, token in owners.items()
        }

        def remove_keys(number: int, held: dict[int, Any] = held) -> httpx2.Response:
            path = f"/v2/repositories/{number}/deploy-keys/{held[number]['result']['key_id']}"
            return call(everywhere, "DELETE", path, owners[number])

        with ThreadPoolExecutor(2) as pool:
            assert [answer.status_code for answer in pool.map(remove_keys, (1, 2))] == [200, 200]
        assert add(everywhere, title="mine", key=line).status_code == 201


def test_a_list_is_consistent_while_keys_are_added_and_deleted(everywhere: Service) -> None:
    for number in range(5):
        add(everywhere, title=f"steady {number}", key=fresh_line())
    stop = threading.Event()
    problems: list[str] = []

    def watch_list() -> None:
        while not stop.is_set():
            body = call(everywhere, "GET", "/v4/user/keys?limit=100").json()
            ids = [key["id"] for key in body["keys"]]
            if len(ids) != body["total"] or ids != sorted(set(ids), reverse=True) or body["total"] < 5:
                problems.append(json.dumps(body))

    def churn(name: int) -> None:
        for number in range(8):
            added = add(everywhere, title=f"passing {name} {number}", key=fresh_line()).json()
            call(everywhere, "DELETE", f"/v4/user/keys/{added['id']}")

    watcher = threading.Thread(target=watch_list)
    watcher.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(churn, range(4)))
    finally:
        stop.set()
        watcher.join()
    assert problems == []
    assert call(everywhere, "GET", "/v4/user/keys").json()["total"] == 5


def test_an_rsa_key_of_8192_bits_comes_back_whole(team: Service) -> None:
    assert len(RSA_8192.split()[1]) > 1300
    added = add(team, title="büro 🔑 山田", key=f"  {RSA_8192}  \n").json()
    assert (added["title"], added["key"]) == ("büro 🔑 山田", RSA_8192)
    listed = call(team, "GET", "/v4/user/keys").json()
    assert listed["keys"] == [added]
    raw = call(team, "GET", "/v4/user/keys")
    assert raw.headers["Content-Type"] == "application/json"
    assert "büro 🔑 山田" in raw.content.decode()


def test_titles_need_not_be_unique_and_deleted_ids_never_come_back(team: Service) -> None:
    first = add(team, title="desk", key=fresh_line()).json()["id"]
    second = add(team, title="desk", key=fresh_line()).json()["id"]
    assert second > first
    call(team, "DELETE", f"/v4/user/keys/{second}")
    assert add(team, title="desk", key=fresh_line()).json()["id"] > second


def test_a_deleted_key_is_free_again(team: Service) -> None:
    line = fresh_line()
    key = add(team, title="desk", key=line).json()["id"]
    assert add(team, "token-of-bob", title="desk", key=line).status_code == 409
    call(team, "DELETE", f"/v4/user/keys/{key}")
    assert add(team, "token-of-bob", title="desk", key=line).status_code == 201


def test_a_hundred_keys_and_no_more(unused_data: Path) -> None:
    with running(settings_for(unused_data, "", max_user_keys=3)) as service:
        service.apply(TEAM)
        answers = [add(service, title=f"{number}", key=fresh_line()).status_code for number in range(4)]
        assert answers == [201, 201, 201, 400]
        assert add(service, "token-of-bob", title="x", key=fresh_line()).status_code == 201


def test_a_key_may_be_required(unused_data: Path) -> None:
    with running(settings_for(unused_data, "", require_key=True)) as service:
        service.apply(TEAM)
        answer = add(service, title="no key")
        assert (answer.status_code, answer.json()["error_code"]) == (400, "CH.010001")


def test_times_are_written_in_the_instances_zone(unused_data: Path) -> None:
    with running(settings_for(unused_data, "", time_zone="Asia/Shanghai")) as service:
        service.apply(TEAM)
        written = add(service, title="desk").json()["created_at"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+08:00", written)


UNKNOWN = ("/v4", "/v4/nothing", "/v4/user/keys/1/2", "/v4/user", "/v4/repositories/1/deploy-keys/1/submodules")
OLD_UNKNOWN = ("/v1", "/v1/nothing", "/v2", "/v2/user/keys", "/v2/users/sshkey", "/v1/users/sshkey/privatekey/verify")


@pytest.mark.parametrize("path", UNKNOWN)
def test_unknown_paths_in_the_shape_of_v4(team: Service, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        answer = call(team, method, path)
        if answer.status_code != 405:
            assert (answer.status_code, answer.json()["error_code"]) == (404, "CH.000404")
        assert set(answer.json()) == {"error_code", "error_msg"}
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-Id"])


@pytest.mark.parametrize("path", OLD_UNKNOWN)
def test_unknown_paths_in_the_envelope_of_v1(team: Service, path: str) -> None:
    answer = call(team, "POST", path, json={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "CH.000404")
    assert answer.json()["status"] == "failed"
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-Id"])


def test_refusals_of_v1_have_its_envelope(team: Service) -> None:
    nobody = team.call("GET", "/v1/users/sshkey")
    assert (nobody.status_code, nobody.json()["error"]["code"]) == (401, "DEV.00000001")
    dead = call(team, "GET", "/v1/users/sshkey", "a token that never was")
    assert (dead.status_code, dead.json()["error"]["code"]) == (401, "DEV.00000003")
    lacking = call(team, "GET", "/v1/users/sshkey", "token-of-mallory")
    assert (lacking.status_code, lacking.json()["error"]["code"]) == (403, "CH.004403")


@pytest.mark.parametrize("content", [b"", b" \r\n"])
def test_an_empty_body_adds_no_key(team: Service, content: bytes) -> None:
    answer = call(team, "POST", "/v4/user/keys", content=content)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "CH.010001")
    assert call(team, "GET", "/v4/user/keys").json()["total"] == 0
    assert call(team, "POST", "/v4/user/keys", json={}).status_code == 201, "as published"


def test_every_answer_has_a_request_id(team: Service) -> None:
    answers = [
        add(team, title="desk"),
        call(team, "GET", "/v4/user/keys"),
        call(team, "DELETE", "/v4/user/keys/999999"),
        call(team, "PUT", "/v4/user/keys"),
        team.call("GET", "/v4/user/keys"),
        team.call("POST", "/v4/user/keys", headers={"X-Auth-Token": "token-of-alice"}, content=b"{"),
        team.call("GET", "/v3"),
    ]
    ids = [answer.headers["X-Request-Id"] for answer in answers]
    assert len(set(ids)) == len(answers)
    assert not any(300 <= answer.status_code < 400 for answer in answers)


@pytest.mark.parametrize(("field", "value"), [("title", ""), ("title", "x" * 1001), ("title", True)])
def test_words_that_say_this_name_the_field(unchanged_team: Service, field: str, value: Any) -> None:
    """The shape has no place for the field, and there is more than one."""
    body = {"title": "desk", "key": None, field: value}
    answer = unchanged_team.call("POST", "/v4/user/keys", headers={"X-Auth-Token": "token-of-alice"}, json=body)
    assert answer.status_code == 400
    assert answer.json()["error_msg"].startswith(f"{field}: This ")
