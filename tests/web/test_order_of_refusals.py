"""What is said first where several things are wrong: who may not, or names what is not there, hears of no fields."""

from __future__ import annotations

from typing import Any

import pytest

from tests.services import Service

RUNCLOUD = (
    ("POST", "/servers/{server}/ssh/credentials"),
    ("POST", "/servers/{server}/sshcredentials"),
    ("POST", "/servers/{server}/users"),
    ("PATCH", "/servers/{server}/users/1/password"),
    ("PATCH", "/servers/{server}/settings/meta"),
)


@pytest.mark.parametrize(("method", "path"), RUNCLOUD)
def test_runcloud_says_403_and_404_before_422(unchanged_team: Service, method: str, path: str) -> None:
    for base in ("/api/v3", "/api/v2", "/api/v3/agency"):
        for token, server, status in (
            ("token-of-mallory", 1, 403),
            ("token-of-mallory", 99, 403),
            ("token-of-olga", 2, 404),
            ("token-of-olga", 99, 404),
            ("token-of-olga", 1, 422),
        ):
            body: dict[str, Any] = {"useDns": 7}
            answer = unchanged_team.call(method, base + path.format(server=server), token=token, json=body)
            assert answer.status_code == status, (base, token, server, answer.text)
    assert len(answer.json()["errors"]) > 0


def test_runcloud_does_so_for_a_new_server_and_for_settings(unchanged_team: Service) -> None:
    assert unchanged_team.call("POST", "/api/v3/servers", token="token-of-mallory", json={}).status_code == 403
    for path in ("ssh/config", "settings/ssh"):
        for token, server, status in (
            ("token-of-mallory", 1, 403),
            ("token-of-olga", 2, 404),
            ("token-of-olga", 1, 422),
        ):
            address = f"/api/v3/servers/{server}/{path}"
            answer = unchanged_team.call("PATCH", address, token=token, json={"useDns": 7})
            assert answer.status_code == status, (path, token, server)


def test_codearts_says_403_and_404_before_400(team: Service) -> None:
    made = team.call("PUT", "/api/keyrack/v1/repositories", token="token-of-olga", json={"path": "acme/site"}).json()
    shown = team.call("GET", f"/v4/repositories/{made['id']}", headers={"X-Auth-Token": "token-of-olga"}).json()
    calls = ["/v2/repositories/{}/deploy-keys", "/v1/repositories/{}/deploy_keys", "/v4/repositories/{}/members"]
    for path in calls:
        for token, number, status in (
            ("token-of-mallory", made["id"], 403),
            ("token-of-olga", 99, 404),
            ("token-of-olga", made["id"], 400),
        ):
            answer = team.call("POST", path.format(number), headers={"X-Auth-Token": token}, json={"users": 7})
            assert answer.status_code == status, (path, token, number, answer.text)
    assert shown["id"] == made["id"]


@pytest.mark.parametrize("body", [{}, {"password": "x"}, {"zz": 1}])
def test_runcloud_names_a_missing_system_user_before_fields(unchanged_team: Service, body: dict[str, Any]) -> None:
    for server, user in ((1, 999), (99, 1), (2, 1)):
        address = f"/api/v3/servers/{server}/users/{user}/password"
        answer = unchanged_team.call("PATCH", address, token="token-of-olga", json=body)
        assert (answer.status_code, answer.json()) == (404, {"message": "Resources not found."})


def test_runcloud_does_so_where_the_core_judges_a_value(unchanged_team: Service) -> None:
    """The frame finds nothing wrong with these bodies: a name, a setting, a length are the core's to judge."""
    for method, path, body in (
        ("POST", "users", {"username": "-"}),
        ("PATCH", "ssh/config", {}),
        ("PATCH", "settings/ssh", {"zz": 1}),
    ):
        for server, status in ((99, 404), (2, 404), (1, 422)):
            address = f"/api/v3/servers/{server}/{path}"
            assert unchanged_team.call(method, address, token="token-of-olga", json=body).status_code == status


NATIVE: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("PATCH", "/grants/999", {"zz": 1}),
    ("POST", "/grants/999/renew", {}),
    ("POST", "/requests/999/approve", {"zz": 1}),
    ("POST", "/tokens/999/rotate", {"overlap": "2m"}),
    ("PATCH", "/people/nobody", {"zz": 1}),
    ("POST", "/people/nobody/offboard", {"zz": 1}),
    ("PUT", "/people/nobody/key-sources/github", {}),
    ("GET", "/servers/nowhere/credentials?zz=1", {}),
)


@pytest.mark.parametrize(("method", "path", "body"), NATIVE)
def test_keyracks_own_api_reports_what_is_missing_before_wrong_fields(
    unchanged_team: Service, method: str, path: str, body: dict[str, Any]
) -> None:
    answer = unchanged_team.call(method, "/api/keyrack/v1" + path, token="token-of-olga", json=body)
    assert answer.status_code == 404, answer.text


def test_keyracks_own_api_does_not_show_what_a_caller_may_not_see(unchanged_team: Service) -> None:
    """A member who may not read people hears the same of one who is there and one who is not."""
    answers = {
        (answer.status_code, answer.text)
        for name in ("alice", "nobody")
        for answer in (
            unchanged_team.call(
                "POST", f"/api/keyrack/v1/people/{name}/offboard", token="token-of-mallory", json={"zz": 1}
            ),
        )
    }
    assert len(answers) == 1


@pytest.mark.parametrize("asked", ["page=0", "page=abc", "perPage=-1", "page=1&page=2"])
@pytest.mark.parametrize("path", ["ssh/credentials", "sshcredentials", "users", "logs", "ssh/sessions"])
def test_a_page_of_runclouds_api_does_not_show_which_servers_exist(
    unchanged_team: Service, path: str, asked: str
) -> None:
    for token, server, status in (
        ("token-of-mallory", 1, 403),
        ("token-of-mallory", 2, 403),
        ("token-of-mallory", 99, 403),
        ("token-of-olga", 2, 404),
        ("token-of-olga", 99, 404),
        ("token-of-olga", 1, 422),
    ):
        answer = unchanged_team.call("GET", f"/api/v3/servers/{server}/{path}?{asked}", token=token)
        assert answer.status_code == status, (token, server, answer.text)
    assert unchanged_team.call("GET", f"/api/v3/servers?{asked}", token="token-of-mallory").status_code == 403
