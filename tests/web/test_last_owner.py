"""A workspace keeps an owner who can get in: one who has nothing to get in with does not count."""

from __future__ import annotations

from typing import Any

import pytest

from tests.services import Service

BASE = "/api/keyrack/v1"
GOING: tuple[tuple[str, str, Any], ...] = (
    ("DELETE", "/people/olga", None),
    ("PATCH", "/people/olga", {"role": "member"}),
    ("PATCH", "/people/olga", {"disabled": True}),
    ("POST", "/people/olga/offboard", {}),
)


def call(service: Service, method: str, path: str, body: Any = None) -> Any:
    return service.call(method, BASE + path, token="token-of-olga", json=body)


@pytest.mark.parametrize("scopes", [None, ["servers:read"]])
def test_the_last_owner_who_can_get_in_stays(team_on_each: Service, scopes: list[str] | None) -> None:
    assert call(team_on_each, "PUT", "/people/eva", {"role": "owner"}).status_code == 200
    if scopes is not None:
        made = call(team_on_each, "POST", "/tokens", {"name": "t", "user": "eva", "scopes": scopes})
        assert made.status_code == 201
    for method, path, body in GOING:
        answer = call(team_on_each, method, path, body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "last-owner"), (method, path)
        assert "can get in" in answer.json()["error"]["message"]


def test_an_owner_goes_once_another_one_can_get_in(team_on_each: Service) -> None:
    assert call(team_on_each, "PUT", "/people/eva", {"role": "owner"}).status_code == 200
    made = call(team_on_each, "POST", "/tokens", {"name": "t", "user": "eva", "scopes": ["*"]}).json()
    assert call(team_on_each, "DELETE", "/people/olga").status_code == 204
    assert team_on_each.call("GET", f"{BASE}/people", token=made["token"]).status_code == 200
