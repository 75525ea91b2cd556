"""Repositories, members and deploy keys over v4: who may what, and the codes of their own pages."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.core.keys_for_tests import fresh_line
from tests.services import Service

REPOSITORIES = """
[workspace]
name = "acme"
[[users]]
name = "trudy"
role = "member"
policies = ["codeartsrepo::*"]
tokens = [{ name = "laptop", token = "token-of-trudy", scopes = ["*"] }]
[[repositories]]
id = 1
path = "acme/site"
members = [{ user = "alice", role = "admin" }, { user = "bob", role = "viewer" }]
"""


def call(service: Service, method: str, path: str, token: str = "token-of-alice", **more: Any) -> httpx2.Response:
    """One request with X-Auth-Token."""
    return service.call(method, path, headers={"X-Auth-Token": token}, **more)


@pytest.fixture
def forge(team: Service) -> Service:
    """The team with one repository: alice is its admin, bob a viewer; mallory, audrey and trudy are no members, and
    trudy may keep keys of her own."""
    team.apply(REPOSITORIES)
    return team


def add_deploy_key(service: Service, token: str = "token-of-alice") -> httpx2.Response:
    """Add a new deploy key to the repository."""
    body = {"application": "ci", "can_push": False, "key": fresh_line(), "key_title": "ci"}
    return call(service, "POST", "/v2/repositories/1/deploy-keys", token, json=body)


def refused(answer: httpx2.Response) -> tuple[int, str]:
    """The status and the code of an answer in v4's shape."""
    assert set(answer.json()) == {"error_code", "error_msg"}
    return answer.status_code, answer.json()["error_code"]


def test_roles_in_a_repository_decide_who_may_change_deploy_keys(forge: Service) -> None:
    key = add_deploy_key(forge).json()["result"]["key_id"]
    keys = "/v4/repositories/1/deploy-keys"
    for token in ("token-of-olga", "token-of-alice", "token-of-bob", "token-of-audrey"):
        listed = call(forge, "GET", keys, token)
        assert (listed.status_code, listed.headers["X-Total"]) == (200, "1")
        assert set(listed.json()[0]) == {"id", "title", "fingerprint", "created_at"}
    assert refused(call(forge, "GET", keys, "token-of-mallory")) == (403, "CH.00401001")
    assert refused(call(forge, "GET", keys, "token-of-victor")) == (404, "CH.00402000")
    assert refused(call(forge, "GET", "/v4/repositories/999/deploy-keys", "token-of-victor")) == (404, "CH.00402000")
    for token in ("token-of-bob", "token-of-audrey", "token-of-mallory"):
        assert refused(call(forge, "DELETE", f"{keys}/{key}", token)) == (403, "CH.00401001")
        assert add_deploy_key(forge, token).status_code == 403
    assert refused(call(forge, "DELETE", f"{keys}/{key}", "token-of-victor")) == (404, "CH.00402000")
    assert refused(call(forge, "DELETE", f"{keys}/999", "token-of-alice")) == (404, "CH.000404")
    gone = call(forge, "DELETE", f"{keys}/{key}")
    assert (gone.status_code, gone.content) == (204, b"")


def test_codes_of_the_deploy_keys_pages(forge: Service) -> None:
    assert refused(call(forge, "GET", "/v4/repositories/1/deploy-keys", "no token")) == (401, "CH.00000002")
    assert refused(call(forge, "GET", "/v4/repositories/1", "no token")) == (401, "DEV.00000003")
    assert refused(forge.call("GET", "/v4/repositories/1/deploy-keys")) == (401, "DEV.00000001")


def test_deploy_keys_are_listed_with_offset_and_limit(forge: Service) -> None:
    made = [int(add_deploy_key(forge).json()["result"]["key_id"]) for _ in range(3)]
    page = call(forge, "GET", "/v4/repositories/1/deploy-keys?offset=1&limit=1")
    assert ([key["id"] for key in page.json()], page.headers["X-Total"]) == ([made[1]], "3")
    assert refused(call(forge, "GET", "/v4/repositories/1/deploy-keys?limit=0")) == (400, "CH.010001")


def test_check_key_wants_a_key(forge: Service) -> None:
    path = "/v4/repositories/1/deploy-keys/check-key"
    for body in ({}, {"key": ""}, {"key": "x" * 5001}, {"key": None}):
        assert refused(call(forge, "POST", path, json=body)) == (400, "CH.010001")


def test_each_user_sees_the_repositories_that_they_are_members_of(forge: Service) -> None:
    seen = {
        token: [item["id"] for item in call(forge, "GET", "/v4/user/repositories", token).json()]
        for token in ("token-of-olga", "token-of-bob", "token-of-audrey", "token-of-mallory", "token-of-victor")
    }
    assert list(seen.values()) == [[1], [1], [1], [], []]
    assert call(forge, "GET", "/v4/repositories/1", "token-of-bob").json()["visibility"] == "private"
    assert refused(call(forge, "GET", "/v4/repositories/1", "token-of-mallory")) == (403, "CH.00401001")
    assert refused(call(forge, "GET", "/v4/repositories/1", "token-of-victor")) == (404, "CH.00402000")
    # Who may see none must not learn which ones there are.
    for method, path in (
        ("GET", "/v4/repositories/%s"),
        ("GET", "/v4/repositories/%s/deploy-keys"),
        ("DELETE", "/v4/repositories/%s/deploy-keys/1"),
        ("GET", "/v4/repositories/%s/members"),
        ("DELETE", "/v2/repositories/%s/deploy-keys/1"),
        ("DELETE", "/v1/repositories/%s"),
    ):
        for token, status in (("token-of-mallory", 403), ("token-of-trudy", 404)):
            there, not_there = (call(forge, method, path % number, token) for number in (1, 999))
            assert (there.status_code, there.json()) == (status, not_there.json()), (path, token)
            assert not_there.status_code == status, (path, token)


@pytest.mark.parametrize(("method", "more"), [("GET", ""), ("POST", "/check-key")])
def test_deploy_keys_of_groups_are_answered_404(forge: Service, method: str, more: str) -> None:
    path = f"/v4/groups/7/deploy-keys{more}"
    body = {"key": fresh_line()} if more else None
    assert refused(call(forge, method, path, json=body)) == (404, "CH.000404")
    assert refused(forge.call(method, path, json=body)) == (401, "DEV.00000001")
    assert refused(call(forge, method, path, "no token", json=body))[0] == 401


def test_projects(forge: Service) -> None:
    project = "aa2d97d7e62c4b7da3ffdfc11551f878"
    body = {"name": "tools", "project_uuid": project, "visibility_level": 10}
    assert call(forge, "POST", "/v1/repositories", json=body).status_code == 403
    assert call(forge, "POST", "/v1/repositories", "token-of-olga", json=body).status_code == 200
    listed = call(forge, "GET", f"/v4/projects/{project}/repositories", "token-of-mallory")
    assert [(item["name"], item["visibility"]) for item in listed.json()] == [("tools", "internal")]
    keys = call(forge, "GET", f"/v4/projects/{project}/deploy-keys")
    assert (keys.json(), keys.headers["X-Total"]) == ([], "0")
    for path in ("repositories", "deploy-keys"):
        assert call(forge, "GET", f"/v4/projects/{project}/{path}", "token-of-victor").status_code == 404
    for wrong in ({"name": "../x"}, {"name": "a/b"}, {"name": ""}, {"name": 5}, {"visibility_level": 7}):
        answer = call(forge, "POST", "/v1/repositories", "token-of-olga", json={**body, **wrong})
        assert answer.status_code == 400, wrong
    assert answer.json()["error"]["message"] == "visibility_level: This takes 0, 10 or 20."
    foreign = call(forge, "POST", "/v1/repositories", "token-of-victor", json=body)
    assert foreign.status_code == 400


def test_members_who_may_push(forge: Service) -> None:
    path = "/v4/repositories/1/members"
    everybody = call(forge, "GET", path, "token-of-bob").json()
    assert [(member["user_name"], member["repository_role_Id"]) for member in everybody] == [
        ("alice", "40"),
        ("bob", "20"),
    ]
    # Every name that the SDK's record of a member has.
    assert set(everybody[0]) == {
        *("user_id", "user_iam_id", "user_name", "user_nick_name", "tenant_name", "tenant_id", "is_repo_creator"),
        *("is_group_creator", "is_Project_admin", "project_role_name", "repository_role_name", "repository_role_Id"),
        *("member_source", "member_group_source", "member_source_id", "service_license_status", "action_enabled"),
    }
    uuid = call(forge, "GET", "/v4/repositories/1").json()["uuid"]
    (first, _) = call(forge, "GET", f"/v1/repositories/{uuid}/members").json()["result"]["users"]
    assert {"id", "name", "role", "domain_id", "domain_name"} <= set(first)
    assert first["id"] == first["user_id"] == everybody[0]["user_iam_id"]
    pushing = call(forge, "GET", f"{path}?permission=code&action=push,download", "token-of-bob").json()
    assert [member["user_name"] for member in pushing] == ["alice"]
    assert call(forge, "GET", f"{path}?search=BO").headers["X-Total"] == "1"


def test_only_admins_of_a_repository_add_members(forge: Service) -> None:
    path = "/v4/repositories/1/members"
    body: dict[str, Any] = {"users": [{"user_iam_id": "0" * 32, "repository_role_Id": "20"}]}
    for token in ("token-of-bob", "token-of-audrey", "token-of-mallory"):
        assert refused(call(forge, "POST", path, token, json=body)) == (403, "CH.00401001")
    assert refused(call(forge, "POST", path, "token-of-victor", json=body)) == (404, "CH.00402000")
    assert call(forge, "POST", path, json=body).json()[0]["status"] == "error"
    malformed: tuple[dict[str, Any], ...] = ({}, {"users": []}, {"users": "x"}, {"users": [{}] * 101})
    for wrong in malformed:
        assert refused(call(forge, "POST", path, json=wrong)) == (400, "CH.010001")
    for item in (5, {}, {"user_iam_id": 5}, {"user_iam_id": "x", "repository_role_Id": "50"}):
        (failed,) = call(forge, "POST", path, json={"users": [item]}).json()
        assert failed["status"] == "error"
    assert failed["result"][0]["message"].startswith("repository_role_Id takes 20")


@pytest.mark.parametrize("level", [10.0, -0.0, True, "10", None, [10], {"10": 10}, 11, -10, 2**70])
def test_only_the_three_visibility_numbers_are_accepted(forge: Service, level: Any) -> None:
    new = {"name": "site", "project_uuid": "aa2d97d7e62c4b7da3ffdfc11551f878", "visibility_level": level}
    answer = call(forge, "POST", "/v1/repositories", "token-of-olga", json=new)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "CH.010001"), answer.text
    del new["visibility_level"]
    assert call(forge, "POST", "/v1/repositories", "token-of-olga", json=new).status_code == 200, "it made none"


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("key_title", "x" * 256, "key_title: This is longer than 255 characters."),
        ("application", "x" * 256, "application: This is longer than 255 characters."),
    ],
)
@pytest.mark.parametrize("path", ["/v1/repositories/1/deploy_keys", "/v2/repositories/1/deploy-keys"])
def test_a_refused_field_is_named_as_the_call_has_it(
    forge: Service, path: str, field: str, value: str, words: str
) -> None:
    body = {"application": "ci", "can_push": False, "key": fresh_line(), "key_title": "ci", field: value}
    answer = call(forge, "POST", path, "token-of-alice", json=body)
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, words)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("-site", "A repository's name has letters, digits"),
        ("site.lock", "A repository's name has letters, digits"),
        ("x" * 223, "name: This is longer than 222 characters"),
    ],
)
def test_a_refused_repository_name_says_why(forge: Service, name: str, words: str) -> None:
    new = {"name": name, "project_uuid": "aa2d97d7e62c4b7da3ffdfc11551f878"}
    answer = call(forge, "POST", "/v1/repositories", "token-of-olga", json=new)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(words)
