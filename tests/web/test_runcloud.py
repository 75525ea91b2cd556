"""RunCloud's API as its client programs see it: over HTTP, compared to the letter where they compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.core.keys_for_tests import fresh_line
from tests.services import Service

DATA = Path(__file__).parent.parent / "data"
KEYS = [json.loads(line) for line in (DATA / "keys_valid.jsonl").read_text("utf-8").split("\n") if line]
KEY = next(key for key in KEYS if key["type"] == "ssh-ed25519")
OTHER = [key for key in KEYS if key["type"] == "ssh-ed25519"][1]
EXAMPLE = json.loads((DATA / "published_examples.json").read_text("utf-8"))["runcloud"]


def add(service: Service, token: str = "token-of-olga", **fields: Any) -> Any:
    """Post a credential; fields replace those of a good request, None leaves one out."""
    body = {"label": "laptop", "username": "deploy", "publicKey": KEY["line"].strip(), **fields}
    body = {name: value for name, value in body.items() if value is not ...}
    return service.call("POST", "/api/v3/servers/1/ssh/credentials", token=token, json=body)


def test_ping(team: Service) -> None:
    answer = team.call("GET", "/api/v3/ping", token="token-of-olga")
    assert (answer.status_code, answer.json()) == (200, {"message": "pong"})


def test_published_example_is_answered_as_documented(team: Service) -> None:
    request = EXAMPLE["request"]
    path = request["path"].replace("{serverId}", "1")
    answer = team.call(request["method"], path, token="token-of-olga", json=request["body"])
    documented = EXAMPLE["response"]["body"]
    assert answer.status_code == EXAMPLE["response"]["status"]
    body = answer.json()
    assert list(body)[: len(documented)] == list(documented)
    for name, value in documented.items():
        assert type(body[name]) is type(value), name
    assert body["user"] == documented["user"]
    assert body["label"] == documented["label"]
    assert body["publicKey"] == request["body"]["publicKey"]
    assert body["publicKey"].startswith(documented["publicKey"].removesuffix("..."))


def test_add_show_list_delete(team: Service) -> None:
    added = add(team).json()
    path = f"/api/v3/servers/1/ssh/credentials/{added['id']}"
    assert added["fingerprint"] == KEY["sha256"]
    assert team.call("GET", path, token="token-of-olga").json() == added
    listed = team.call("GET", "/api/v3/servers/1/ssh/credentials/", token="token-of-olga").json()
    assert listed["data"] == [added]
    assert listed["meta"]["pagination"] == {
        "total": 1,
        "count": 1,
        "per_page": 15,
        "current_page": 1,
        "total_pages": 1,
        "links": {},
    }
    assert team.call("DELETE", path, token="token-of-olga").json() == added
    assert team.call("DELETE", path, token="token-of-olga").status_code == 404
    assert team.call("GET", path, token="token-of-olga").json() == {"message": "Resources not found."}


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"label": ...}, "label", "The label field is required."),
        ({"username": ...}, "username", "The username field is required."),
        ({"publicKey": ...}, "publicKey", "The publicKey field is required."),
        ({"publicKey": 17}, "publicKey", "The publicKey field must be a string."),
        ({"label": "two words"}, "label", None),
        ({"username": "nobody-here"}, "username", None),
        ({"publicKey": "ssh-ed25519 AAAA"}, "publicKey", None),
        ({"temporary": "true"}, "temporary", "The temporary field must be true or false."),
        ({"temporary": None}, "temporary", "The temporary field must be true or false."),
        ({"temporary": 2}, "temporary", "The temporary field must be true or false."),
    ],
)
def test_a_wrong_field_is_named(
    unchanged_team: Service, fields: dict[str, Any], field: str, message: str | None
) -> None:
    answer = add(unchanged_team, **fields)
    assert answer.status_code == 422
    body = answer.json()
    assert list(body["errors"]) == [field]
    assert body["errors"][field] == [body["message"]]
    if message is not None:
        assert body["message"] == message
    listed = unchanged_team.call("GET", "/api/v3/servers/1/ssh/credentials", token="token-of-olga").json()
    assert listed["data"] == []


def test_label_is_unique_on_a_server(team: Service) -> None:
    assert add(team).status_code == 200
    answer = add(team, publicKey=OTHER["line"])
    assert answer.status_code == 422
    assert answer.json() == {
        "message": "The label has already been taken.",
        "errors": {"label": ["The label has already been taken."]},
    }


def test_temporary_key_is_announced_to_end_in_twelve_hours(team: Service) -> None:
    body = add(team, temporary=True).json()
    assert body["temporary"] is True
    assert body["expires_at"] > body["created_at"]


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, "Missing API Token."),
        ({"Authorization": "Bearer wrong-token"}, "Unauthenticated."),
        ({"Authorization": "Bearer"}, "Unauthenticated."),
        ({"Authorization": "Digest x"}, "Unauthenticated."),
        ({"Authorization": "token-of-olga"}, "Unauthenticated."),
    ],
)
def test_a_request_without_a_token_in_force_is_answered_401(
    unchanged_team: Service, headers: dict[str, str], message: str
) -> None:
    answer = unchanged_team.call("GET", "/api/v3/servers", headers=headers)
    assert (answer.status_code, answer.json()) == (401, {"message": message})


def test_a_member_without_rights_is_refused(team: Service) -> None:
    answer = add(team, token="token-of-mallory")
    assert (answer.status_code, answer.json()) == (403, {"message": "This action is unauthorized."})


def test_another_workspace_sees_nothing(team: Service) -> None:
    credential = add(team).json()["id"]
    for method, path in (
        ("GET", "/api/v3/servers/1"),
        ("GET", "/api/v3/servers/1/users"),
        ("GET", "/api/v3/servers/1/ssh/credentials"),
        ("GET", f"/api/v3/servers/1/ssh/credentials/{credential}"),
        ("DELETE", f"/api/v3/servers/1/ssh/credentials/{credential}"),
    ):
        answer = team.call(method, path, token="token-of-victor")
        missing = team.call(method, path.replace("/1", "/999", 1), token="token-of-victor")
        assert (answer.status_code, answer.content) == (404, missing.content), path


def test_servers_and_system_users(team: Service) -> None:
    server = team.call(
        "POST", "/api/v3/servers", token="token-of-olga", json={"name": "db 1", "ipAddress": "192.0.2.20"}
    ).json()
    assert (server["name"], server["ipAddress"], server["connected"], server["online"]) == (
        "db 1",
        "192.0.2.20",
        False,
        False,
    )
    users = f"/api/v3/servers/{server['id']}/users"
    first = team.call("GET", users, token="token-of-olga").json()["data"]
    assert [(user["username"], user["deleteable"]) for user in first] == [("runcloud", False), ("root", False)]
    shop = team.call("POST", users, token="token-of-olga", json={"username": "shop"}).json()
    assert shop["deleteable"] is True
    again = team.call("POST", users, token="token-of-olga", json={"username": "shop"})
    assert again.status_code == 422
    assert list(again.json()["errors"]) == ["username"]


def test_form_bodies_and_bodies_of_gets(team: Service) -> None:
    form = {"label": "form", "username": "deploy", "publicKey": KEY["line"].strip(), "temporary": "1"}
    answer = team.call("POST", "/api/v3/servers/1/ssh/credentials", token="token-of-olga", data=form)
    assert (answer.status_code, answer.json()["temporary"]) == (200, True)
    for content in (b"{}", b"null", b"[]", b"nonsense"):
        answer = team.call("GET", "/api/v3/servers/1", token="token-of-olga", content=content)
        assert answer.status_code == 200


def test_paging(team: Service) -> None:
    for number in range(17):
        assert add(team, label=f"key-{number}").status_code == 200
    path = "/api/v3/servers/1/ssh/credentials"
    first = team.call("GET", path, token="token-of-olga").json()
    second = team.call("GET", path, token="token-of-olga", params={"page": "2"}).json()
    past = team.call("GET", path, token="token-of-olga", params={"page": "9", "unknown": "x"}).json()
    assert [len(first["data"]), len(second["data"]), past["data"]] == [15, 2, []]
    assert first["meta"]["pagination"]["links"]["next"].endswith("page=2&perPage=15")
    assert second["meta"]["pagination"]["links"]["previous"].endswith("page=1&perPage=15")
    for others in ({"kept": "one"}, {"kept": "two"}, {"kept": "one"}):
        # The records are the same ones, and what is said beside them is of this question.
        same = team.call("GET", path, token="token-of-olga", params=others).json()
        assert same["data"] == first["data"]
        assert f"?kept={others['kept']}&page=2" in same["meta"]["pagination"]["links"]["next"]
    assert add(team, label="one-more").status_code == 200
    more = team.call("GET", path, token="token-of-olga").json()
    assert (more["data"], more["meta"]["pagination"]["total"]) == (first["data"], 18)
    many = team.call("GET", path, token="token-of-olga", params={"perPage": "500"}).json()
    assert many["meta"]["pagination"]["per_page"] == 40
    for bad in ("0", "-1", "1_0", "٣", "9" * 5000):
        answer = team.call("GET", path, token="token-of-olga", params={"page": bad})
        assert answer.status_code == 422, bad


def test_unknown_paths_and_methods_stay_in_the_dialect(team: Service) -> None:
    answer = team.call("GET", "/api/v3/nothing/here", token="token-of-olga")
    assert (answer.status_code, answer.json()) == (404, {"message": "Resources not found."})
    answer = team.call("PATCH", "/api/v3/servers/1/ssh/credentials", token="token-of-olga", json={})
    assert answer.status_code == 405
    assert answer.json()["message"].startswith("The PATCH method is not supported for this route. Supported methods: ")


@pytest.mark.parametrize("record", KEYS, ids=lambda record: record["name"])
def test_every_good_key_is_accepted(team: Service, record: dict[str, Any]) -> None:
    body = add(team, publicKey=record["line"])
    assert body.status_code == 200
    assert body.json()["fingerprint"] == record["sha256"]


def test_v2_names_the_system_user_by_number(team: Service) -> None:
    users = team.call("GET", "/api/v2/servers/1/users?search=deploy", token="token-of-olga").json()["data"]
    body = {"label": "v2", "username": "deploy", "publicKey": fresh_line()}
    added = team.call("POST", "/api/v2/servers/1/sshcredentials", token="token-of-olga", json=body).json()
    assert added["user_id"] == users[0]["id"]
    listed = team.call("GET", "/api/v2/servers/1/sshcredentials", token="token-of-olga").json()["data"]
    assert [key["user_id"] for key in listed] == [users[0]["id"]]
    path = f"/ssh/credentials/{added['id']}"
    assert "user_id" not in team.call("GET", "/api/v3/servers/1" + path, token="token-of-olga").json()
    assert team.call("DELETE", "/api/v2/servers/1" + path, token="token-of-olga").json()["user_id"] == users[0]["id"]


def test_all_wrong_fields_are_named_together(team: Service) -> None:
    assert add(team).status_code == 200
    taken, missing = "The label has already been taken.", "The server has no system user of that name."
    for fields, named in (
        ({"publicKey": "ssh-ed25519 AAAA"}, ["label", "publicKey"]),
        ({"publicKey": OTHER["line"], "username": "nobody-here"}, ["label", "username"]),
        ({"publicKey": ..., "username": "nobody-here"}, ["label", "username", "publicKey"]),
        ({"publicKey": 17, "temporary": 2}, ["label", "publicKey", "temporary"]),
    ):
        errors = add(team, **fields).json()["errors"]
        assert list(errors) == named, fields
        assert errors["label"] == [taken]
        assert "username" not in errors or errors["username"][0].startswith(missing)
    refused = team.call("GET", "/api/keyrack/v1/events?kind=refused", token="token-of-olga").json()["items"]
    assert len(refused) == 3  # the last two are the same, and counted as one
    # Whoever may not add keys there, or names no server of theirs, hears of no label.
    assert add(team, token="token-of-mallory", publicKey=17).status_code == 403
    assert add(team, token="token-of-victor", publicKey=17).status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        (
            "/servers",
            {"name": "x" * 300, "ipAddress": "two words", "provider": "a\nb"},
            ["name", "ipAddress", "provider"],
        ),
        ("/servers", {"name": "x" * 300, "provider": 5}, ["name", "ipAddress", "provider"]),
        ("/servers/1/users", {"username": "-x", "password": "short"}, ["username", "password"]),
        ("/servers/1/users", {"password": "short"}, ["username", "password"]),
    ],
)
def test_all_wrong_fields_of_servers_and_users_are_named(
    unchanged_team: Service, path: str, body: dict[str, Any], named: list[str]
) -> None:
    answer = unchanged_team.call("POST", f"/api/v3{path}", token="token-of-olga", json=body)
    assert answer.status_code == 422
    assert list(answer.json()["errors"]) == named
    assert answer.json()["message"] == answer.json()["errors"][named[0]][0]
