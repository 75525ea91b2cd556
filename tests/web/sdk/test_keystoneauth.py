"""keystoneauth1, unchanged: sign in with v3 and with discovery, then use the token alone, and sign in again on 401."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests
from keystoneauth1 import session
from keystoneauth1.exceptions import Unauthorized
from keystoneauth1.identity import generic, v3

from tests.core.keys_for_tests import fresh_line
from tests.services import Service
from tests.web.sdk.clients import PROJECT

WHO: dict[str, Any] = {"username": "alice", "password": "alice's password", "user_domain_name": "acme"}
SCOPE: dict[str, Any] = {"project_name": "cn-north-4", "project_domain_name": "acme"}


@pytest.fixture
def opened() -> Iterator[list[Any]]:
    """Sessions to be closed at the end."""
    sessions: list[Any] = []
    yield sessions
    for one in sessions:
        one.session.close()


def connect(opened: list[Any], auth: Any) -> Any:
    """A session that signs in this way."""
    # It would make its own HTTP session at the first request, which nobody could close.
    made = session.Session(auth=auth, session=requests.Session())
    opened.append(made)
    return made


def walk_through(one: Any, url: str) -> None:
    """Add, list and delete a key with the token alone."""
    added = one.post(f"{url}/v4/user/keys", json={"title": "desk", "key": fresh_line()})
    assert added.status_code == 201
    assert one.get(f"{url}/v4/user/keys").json() == {"keys": [added.json()], "total": 1}
    assert one.delete(f"{url}/v4/user/keys/{added.json()['id']}").status_code == 204


def test_v3_password(team: Service, opened: list[Any]) -> None:
    one = connect(opened, v3.Password(auth_url=f"{team.url}/v3", **WHO, **SCOPE))
    walk_through(one, team.url)
    assert one.get_project_id() == PROJECT


def test_v3_password_without_scope_and_for_the_account(team: Service, opened: list[Any]) -> None:
    walk_through(connect(opened, v3.Password(auth_url=f"{team.url}/v3", **WHO)), team.url)
    walk_through(connect(opened, v3.Password(auth_url=f"{team.url}/v3", **WHO, domain_name="acme")), team.url)


@pytest.mark.parametrize("place", ["/v3", "/v3/", "", "/"])
def test_generic_password_finds_its_way(team: Service, opened: list[Any], place: str) -> None:
    walk_through(connect(opened, generic.Password(auth_url=team.url + place, **WHO, **SCOPE)), team.url)


def test_user_by_id(team: Service, opened: list[Any]) -> None:
    users = team.call("GET", "/v3/users", headers={"X-Auth-Token": "token-of-olga"}).json()["users"]
    alice = next(user["id"] for user in users if user["name"] == "alice")
    auth = v3.Password(auth_url=f"{team.url}/v3", user_id=alice, password="alice's password")
    walk_through(connect(opened, auth), team.url)


def test_a_revoked_token_is_renewed_once(team: Service, opened: list[Any]) -> None:
    one = connect(opened, v3.Password(auth_url=f"{team.url}/v3", **WHO))
    secret = one.get_token()
    gone = one.delete(f"{team.url}/v3/auth/tokens", headers={"X-Subject-Token": secret})
    assert gone.status_code == 204
    alone = team.call("GET", "/v4/user/keys", headers={"X-Auth-Token": secret})
    assert (alone.status_code, alone.json()["error_code"]) == (401, "DEV.00000003")
    assert one.get(f"{team.url}/v4/user/keys").status_code == 200
    assert one.get_token() != secret


def test_wrong_password(team: Service, opened: list[Any]) -> None:
    one = connect(opened, v3.Password(auth_url=f"{team.url}/v3", **{**WHO, "password": "wrong"}))
    with pytest.raises(Unauthorized):
        one.get(f"{team.url}/v4/user/keys")
