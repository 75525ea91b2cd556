"""Repositories by path in Keyrack's own API: who makes one, who sets its members, and that nothing is half done."""

from __future__ import annotations

from tests.services import Service
from tests.web.test_native import call

PATH = "/repositories"
CREATE = "codeartsrepo:repository:createRepository"


def test_the_user_who_creates_a_repository_is_its_admin_and_sets_its_members(team_on_each: Service) -> None:
    team = team_on_each
    alice, bob = "token-of-alice", "token-of-bob"
    call(team, "PATCH", "/people/alice", {"policies": [CREATE]})
    made = call(team, "PUT", PATH, {"path": "acme/site", "members": {"bob": "viewer"}}, token=alice)
    assert made["clone_url"].endswith("/acme/site.git")
    assert made == call(team, "PUT", PATH, {"path": "acme/site"}, token=alice), "nothing is said of members"
    wanted = {"path": "acme/site", "members": {"alice": "admin", "bob": "developer", "olga": "viewer"}}
    assert call(team, "PUT", PATH, wanted, token=alice) == made
    everybody = call(team, "GET", "/events?search=acme/site")["items"]
    assert {one["actor"] for one in everybody} == {"alice"}
    # bob may read and write it, and not say who else may.
    call(team, "PUT", PATH, {"path": "acme/site", "members": {"bob": "admin"}}, token=bob, status=403)
    mistaken = {"path": "acme/site", "members": {"olga": "admin", "nobody": "viewer"}}
    error = call(team, "PUT", PATH, mistaken, token=alice, status=422)["error"]
    assert (error["code"], error["field"]) == ("user-missing", "members")
    assert "nobody" in error["message"]
    before = len(call(team, "GET", "/events?search=acme/site")["items"])
    call(team, "PUT", PATH, wanted, token=alice)
    assert len(call(team, "GET", "/events?search=acme/site")["items"]) == before, "nothing is half done, nor done twice"
    call(team, "PUT", PATH, {"path": "acme/site", "members": {"alice": "admin"}}, token=alice)
    assert call(team, "GET", PATH, token=bob)["items"] == []


def test_users_without_the_right_create_no_repository(team: Service) -> None:
    for token in ("token-of-mallory", "token-of-audrey"):
        call(team, "PUT", PATH, {"path": "acme/site"}, token=token, status=403)
    call(team, "PUT", PATH, {"path": "acme/site"}, token="token-of-victor")
    call(team, "PATCH", "/people/alice", {"policies": [CREATE]})
    taken = call(team, "PUT", PATH, {"path": "acme/site"}, token="token-of-alice", status=409)["error"]
    assert taken["code"] == "path-taken"
    for path in ("site", "../site", "acme/site.git", "acme/.git"):
        error = call(team, "PUT", PATH, {"path": path}, token="token-of-alice", status=422)["error"]
        assert error["field"] == "path"
    # Of a repository that alice may not see she hears what she hears of one that nobody has.
    call(team, "PUT", PATH, {"path": "acme/secret", "members": {}}, token="token-of-olga")
    call(team, "PUT", PATH, {"path": "acme/secret", "members": {"alice": "admin"}}, token="token-of-alice", status=404)
