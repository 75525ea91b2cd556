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
