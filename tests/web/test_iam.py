"""IAM over HTTP: what ends a token, who may see whom, and answers in Keystone's shape."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.services import Service

OLGA = {"X-Auth-Token": "token-of-olga"}
ALICE = {"X-Auth-Token": "token-of-alice"}


def sign_in(service: Service, password: str = "alice's password", **auth: Any) -> httpx2.Response:
    """Ask for a token of alice's."""
    user = {"name": "alice", "password": password, "domain": {"name": "acme"}}
    identity = {"methods": ["password"], "password": {"user": user}}
    return service.call("POST", "/v3/auth/tokens", json={"auth": {"identity": identity, **auth}})


def works(service: Service, secret: str) -> bool:
    """Whether a token is in force, for v4 and for IAM alike."""
    header = {"X-Auth-Token": secret}
    listed = service.call("GET", "/v4/user/keys", headers=header).status_code
    validated = service.call("GET", "/v3/auth/tokens", headers={**header, "X-Subject-Token": secret}).status_code
    assert (listed, validated) in ((200, 200), (401, 401))
    return listed == 200


def user_id(service: Service, name: str = "alice") -> str:
    """The IAM user id of somebody in the team."""
    users = service.call("GET", "/v3/users", headers=OLGA, params={"name": name}).json()["users"]
    found: str = users[0]["id"]
    return found


def shape(answer: httpx2.Response, status: int) -> str:
    """Check Keystone's three fields, and answer the message."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "title"}
    assert error["code"] == status
    assert len(answer.headers["X-Request-Id"]) == 32
    message: str = error["message"]
    return message


def change_password_oneself(service: Service) -> None:
    body = {"user": {"original_password": "alice's password", "password": "another password"}}
    path = f"/v3/users/{user_id(service)}/password"
    assert service.call("POST", path, headers=ALICE, json=body).status_code == 204


def change_password_as_owner(service: Service) -> None:
    path = f"/v3/users/{user_id(service)}"
    body = {"user": {"password": "another password"}}
    assert service.call("PATCH", path, headers=OLGA, json=body).status_code == 200


def disable(service: Service) -> None:
    path = f"/v3/users/{user_id(service)}"
    assert service.call("PATCH", path, headers=OLGA, json={"user": {"enabled": False}}).status_code == 200


def delete(service: Service) -> None:
    assert service.call("DELETE", f"/v3/users/{user_id(service)}", headers=OLGA).status_code == 204


@pytest.mark.parametrize("end", [change_password_oneself, change_password_as_owner, disable, delete])
def test_each_way_to_end_all_tokens_of_a_user_does(team: Service, end: Any) -> None:
    secrets = [sign_in(team).headers["X-Subject-Token"] for _ in range(2)]
    assert [works(team, secret) for secret in secrets] == [True, True]
    end(team)
    assert [works(team, secret) for secret in secrets] == [False, False]
    shape(sign_in(team), 401)
    bobs = {"X-Auth-Token": "token-of-bob"}
    assert team.call("GET", "/v4/user/keys", headers=bobs).status_code == 200


def test_revoking_one_token_leaves_the_others(team: Service) -> None:
    first, second = (sign_in(team).headers["X-Subject-Token"] for _ in range(2))
    gone = team.call("DELETE", "/v3/auth/tokens", headers={"X-Auth-Token": second, "X-Subject-Token": first})
    assert (gone.status_code, gone.content) == (204, b"")
    assert (works(team, first), works(team, second)) == (False, True)


def test_a_disabled_user_is_let_in_again_with_a_new_token_only(team: Service) -> None:
    old = sign_in(team).headers["X-Subject-Token"]
    disable(team)
    path = f"/v3/users/{user_id(team)}"
    team.call("PATCH", path, headers=OLGA, json={"user": {"enabled": True}})
    assert not works(team, old)
    assert works(team, sign_in(team).headers["X-Subject-Token"])


def test_head_checks_without_a_body(team: Service) -> None:
    secret = sign_in(team).headers["X-Subject-Token"]
    found = team.call("HEAD", "/v3/auth/tokens", headers={**ALICE, "X-Subject-Token": secret})
    assert (found.status_code, found.content, found.headers["X-Subject-Token"]) == (200, b"", secret)
    for other in ("a token that never was", "token-of-victor"):
        answer = team.call("HEAD", "/v3/auth/tokens", headers={**ALICE, "X-Subject-Token": other})
        assert answer.status_code == 404
    assert team.call("HEAD", "/v3/auth/tokens", headers={"X-Subject-Token": secret}).status_code == 401


def test_owners_validate_others_tokens_and_members_do_not(team: Service) -> None:
    secret = sign_in(team).headers["X-Subject-Token"]
    subject = {"X-Subject-Token": secret}
    assert team.call("GET", "/v3/auth/tokens", headers={**OLGA, **subject}).json()["token"]["user"]["name"] == "alice"
    shape(team.call("GET", "/v3/auth/tokens", headers={"X-Auth-Token": "token-of-bob", **subject}), 403)
    shape(team.call("GET", "/v3/auth/tokens", headers={"X-Auth-Token": "token-of-victor", **subject}), 404)
    shape(team.call("GET", "/v3/auth/tokens", headers=ALICE), 400)


@pytest.mark.parametrize(
    "scope",
    [
        {"project": {"name": "no such project"}},
        {"project": {"id": "0" * 32}},
        {"domain": {"name": "umbrella"}},
        {"project": {"name": "cn-north-4", "domain": {"name": "umbrella"}}},
    ],
)
def test_a_foreign_scope_is_refused(unchanged_team: Service, scope: Any) -> None:
    shape(sign_in(unchanged_team, scope=scope), 403)


@pytest.mark.parametrize("scope", ["x", {"project": {}}, {"project": "x"}, {"unscoped": {}}, {"project": {"id": 5}}])
def test_a_malformed_scope_is_refused(unchanged_team: Service, scope: Any) -> None:
    shape(sign_in(unchanged_team, scope=scope), 400)


def test_discovery(team: Service) -> None:
    one = team.call("GET", "/v3").json()["version"]
    assert (one["id"], one["links"][0]["href"]) == ("v3.6", f"{team.url}/v3/")
    many = team.call("GET", "/", headers={"Accept": "application/json"})
    assert (many.status_code, many.json()["versions"]["values"]) == (300, [one])
    # Whoever comes with a browser is led to the console instead.
    assert team.call("GET", "/", headers={"Accept": "text/html"}).headers["Location"] == "/login"


def test_a_token_says_whose_it_is(team: Service) -> None:
    found = team.call("GET", "/v5/caller-identity", headers=ALICE).json()
    domains = team.call("GET", "/v3/auth/domains", headers=ALICE).json()["domains"]
    assert (found["account_id"], found["principal_id"]) == (domains[0]["id"], user_id(team))
    projects = team.call("GET", "/v3/projects", headers=ALICE, params={"name": "cn-north-4"}).json()["projects"]
    assert [project["id"] for project in projects] == ["aa2d97d7e62c4b7da3ffdfc11551f878"]
    assert team.call("GET", "/v3/projects", headers=ALICE, params={"name": "x"}).json()["projects"] == []


def test_users_are_the_owners_affair(team: Service) -> None:
    alice, bob = user_id(team), user_id(team, "bob")
    assert team.call("GET", f"/v3/users/{alice}", headers=ALICE).json()["user"]["name"] == "alice"
    for method, path, body in (
        ("GET", "/v3/users", None),
        ("GET", f"/v3/users/{bob}", None),
        ("DELETE", f"/v3/users/{bob}", None),
        ("PATCH", f"/v3/users/{bob}", {"user": {"enabled": False}}),
        ("POST", "/v3/users", {"user": {"name": "x", "password": "a password"}}),
    ):
        shape(team.call(method, path, headers=ALICE, json=body), 403)
    shape(team.call("GET", f"/v3/users/{bob}", headers={"X-Auth-Token": "token-of-victor"}), 404)
    shape(team.call("DELETE", f"/v3/users/{user_id(team, 'olga')}", headers=OLGA), 400)
    made = team.call("POST", "/v3/users", headers=OLGA, json={"user": {"name": "carol", "password": "a password"}})
    assert made.status_code == 201
    shape(team.call("POST", "/v3/users", headers=OLGA, json={"user": {"name": "carol", "password": "a password"}}), 409)


def test_changing_the_own_password_needs_the_old_one(team: Service) -> None:
    path = f"/v3/users/{user_id(team)}/password"
    body = {"user": {"original_password": "wrong", "password": "another password"}}
    shape(team.call("POST", path, headers=ALICE, json=body), 401)
    body = {"user": {"original_password": "alice's password", "password": "short"}}
    shape(team.call("POST", path, headers=ALICE, json=body), 400)
    shape(team.call("PATCH", path.removesuffix("/password"), headers=OLGA, json={"user": {}}), 400)
    assert sign_in(team).status_code == 201


def test_access_keys_are_ones_own_affair(team: Service) -> None:
    made = team.call("POST", "/v3.0/OS-CREDENTIAL/credentials", headers=ALICE, json={"credential": {}}).json()
    path = f"/v3.0/OS-CREDENTIAL/credentials/{made['credential']['access']}"
    assert "secret" not in team.call("GET", path, headers=ALICE).json()["credential"]
    assert team.call("GET", path, headers=OLGA).status_code == 200
    for method, body in (("GET", None), ("DELETE", None), ("PUT", {"credential": {"status": "inactive"}})):
        shape(team.call(method, path, headers={"X-Auth-Token": "token-of-bob"}, json=body), 403)
        shape(team.call(method, path, headers={"X-Auth-Token": "token-of-victor"}, json=body), 404)
    others = {"credential": {"user_id": user_id(team, "bob")}}
    shape(team.call("POST", "/v3.0/OS-CREDENTIAL/credentials", headers=ALICE, json=others), 403)
    assert team.call("POST", "/v3.0/OS-CREDENTIAL/credentials", headers=OLGA, json=others).status_code == 201
    shape(team.call("PUT", path, headers=ALICE, json={"credential": {"status": "sleeping"}}), 400)
    assert team.call("DELETE", path, headers=ALICE).status_code == 204
    shape(team.call("GET", path, headers=ALICE), 404)


@pytest.mark.parametrize("seconds", [899, 86_401, 0, -1, True, "900", 1000.5, None])
def test_a_temporary_key_lives_a_quarter_of_an_hour_to_a_day(unchanged_team: Service, seconds: Any) -> None:
    identity = {"methods": ["token"], "token": {"duration_seconds": seconds}}
    path = "/v3.0/OS-CREDENTIAL/securitytokens"
    shape(unchanged_team.call("POST", path, headers=ALICE, json={"auth": {"identity": identity}}), 400)


@pytest.mark.parametrize(
    "policy",
    [
        {},
        {"Statement": []},
        {"Statement": [{"Effect": "Deny", "Action": ["codeartsrepo::*"]}]},
        {"Statement": [{"Effect": "Allow", "Action": ["codeartsrepo::*"], "Resource": ["x"]}]},
        {"Statement": [{"Effect": "Allow", "Action": "codeartsrepo::*"}]},
    ],
)
def test_a_policy_that_could_not_be_heeded_is_refused(unchanged_team: Service, policy: Any) -> None:
    identity = {"methods": ["token"], "policy": policy}
    path = "/v3.0/OS-CREDENTIAL/securitytokens"
    shape(unchanged_team.call("POST", path, headers=ALICE, json={"auth": {"identity": identity}}), 400)


def test_a_token_in_the_body_must_be_the_callers(team: Service) -> None:
    path = "/v3.0/OS-CREDENTIAL/securitytokens"
    body = {"auth": {"identity": {"methods": ["token"], "token": {"id": "token-of-bob"}}}}
    shape(team.call("POST", path, headers=ALICE, json=body), 403)
    body["auth"]["identity"]["token"] = {"id": "a token that never was"}
    shape(team.call("POST", path, json=body), 401)
    shape(team.call("POST", path, json={"auth": {"identity": {"methods": ["token"]}}}), 401)


@pytest.mark.parametrize("path", ["/v3/nothing", "/v3.0", "/v3.0/nothing", "/v5/nothing"])
def test_unknown_paths_stay_in_the_shape(unchanged_team: Service, path: str) -> None:
    shape(unchanged_team.call("GET", path), 404)
    shape(unchanged_team.call("POST", path, json={}), 404)


def test_unsupported_methods_stay_in_the_shape(team: Service) -> None:
    answer = team.call("PUT", "/v3/auth/tokens", headers=ALICE)
    shape(answer, 405)
    assert "GET" in answer.headers["Allow"]


def test_a_scope_names_a_project_or_an_account(team: Service) -> None:
    both = {"project": {"name": "cn-north-4"}, "domain": {"name": "acme"}}
    assert "not both" in shape(sign_in(team, scope=both), 400)
