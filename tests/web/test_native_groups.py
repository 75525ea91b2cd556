"""Users and groups over Keyrack's own API: set by name, as often as one likes, and nobody above oneself."""

from __future__ import annotations

from tests.core.keys_for_tests import fresh_line
from tests.services import Service
from tests.web.test_native import call
from tests.web.test_native_access import delivered, own_key


def test_a_grant_to_a_group_opens_for_each_of_its_members(team: Service) -> None:
    own_key(team, "alice")
    own_key(team, "bob")
    made = call(team, "PUT", "/groups/ops", {"members": ["alice"]})
    assert call(team, "PUT", "/groups/ops", {"members": ["alice"]}) == made
    call(team, "POST", "/grants", {"group": "ops", "server": "web-1", "system_user": "deploy"}, status=201)
    assert len(delivered(team)["deploy"]) == 1
    assert call(team, "PUT", "/groups/ops/members/bob")["members"] == ["alice", "bob"]
    assert call(team, "PUT", "/groups/ops/members/bob")["members"] == ["alice", "bob"]
    assert {item["via"]["group"] for item in call(team, "GET", "/access?user=bob")["items"]} == {"ops"}
    assert len(delivered(team)["deploy"]) == 2
    assert team.call("DELETE", "/api/keyrack/v1/groups/ops/members/bob", token="token-of-olga").status_code == 204
    call(team, "DELETE", "/groups/ops/members/bob", status=404)
    assert len(delivered(team)["deploy"]) == 1
    listed = call(team, "GET", "/groups?search=OP", token="token-of-audrey")
    assert [(one["name"], one["members"]) for one in listed["items"]] == [("ops", ["alice"])]
    call(team, "PUT", "/groups/ops", {"members": ["nobody"]}, status=422)
    call(team, "PUT", "/groups/none/members/bob", status=404)
    call(team, "DELETE", "/groups/ops", token="token-of-audrey", status=403)
    assert team.call("DELETE", "/api/keyrack/v1/groups/ops", token="token-of-olga").status_code == 204
    assert delivered(team) == {}
    assert call(team, "GET", "/grants")["total"] == 0
    call(team, "GET", "/groups/ops", status=404)


def test_people_are_set_by_name(team: Service) -> None:
    made = call(team, "PUT", "/people/bot", {"kind": "service", "role": "auditor"})
    assert (made["kind"], made["role"], made["disabled"]) == ("service", "auditor", False)
    assert call(team, "PUT", "/people/bot", {"kind": "service", "role": "auditor"}) == made
    assert call(team, "PATCH", "/people/bot", {"policies": ["servers:read"]})["policies"] == ["servers:read"]
    assert call(team, "PATCH", "/people/bot", {"disabled": True})["disabled"] is True
    assert call(team, "GET", "/people/bot", token="token-of-audrey")["role"] == "auditor"
    call(team, "PATCH", "/people/nobody", {"disabled": True}, status=404)
    call(team, "PATCH", "/people/bot", {"role": "king"}, status=422)
    assert team.call("DELETE", "/api/keyrack/v1/people/bot", token="token-of-olga").status_code == 204
    call(team, "GET", "/people/bot", status=404)


def test_the_last_owner_stays_and_nobody_gives_more_rights_than_their_own(team: Service) -> None:
    for change in ({"role": "member"}, {"disabled": True}):
        assert call(team, "PATCH", "/people/olga", change, status=422)["error"]["code"] == "last-owner"
    assert call(team, "GET", "/people/olga")["role"] == "owner"
    call(team, "PATCH", "/people/alice", {"policies": ["people:*"]})
    refused = call(team, "PATCH", "/people/alice", {"role": "owner"}, token="token-of-alice", status=403)
    assert refused["error"]["code"] == "exceeds-own-rights"
    for path, change in (("/people/olga", {"disabled": True}), ("/people/new", {"role": "admin"})):
        call(team, "PUT", path, change, token="token-of-alice", status=403)
    call(team, "GET", "/people/new", status=404)
    call(team, "PUT", "/people/new", {}, token="token-of-audrey", status=403)


def test_a_refused_change_of_a_person_changes_nothing(team: Service) -> None:
    call(team, "PATCH", "/people/olga", {"policies": ["servers:read"], "disabled": True}, status=422)
    assert call(team, "GET", "/people/olga")["policies"] == []


def test_a_persons_own_page_of_keys(team: Service) -> None:
    assert call(team, "GET", "/people/me", token="token-of-alice")["name"] == "alice"
    body = {"title": "laptop", "public_key": fresh_line()}
    made = call(team, "POST", "/people/me/keys", body, token="token-of-alice", status=201)
    assert call(team, "GET", "/people/me/keys", token="token-of-alice")["items"] == [made]
    path = f"/api/keyrack/v1/people/me/keys/{made['id']}"
    assert team.call("DELETE", path, token="token-of-bob").status_code == 404
    assert team.call("DELETE", path, token="token-of-alice").status_code == 204
    assert call(team, "GET", "/people/me/keys", token="token-of-alice")["total"] == 0


def test_putting_a_persons_key_twice_changes_nothing(team: Service) -> None:
    wanted = {"title": "desk", "public_key": fresh_line()}
    made = call(team, "PUT", "/people/alice/keys", wanted)
    assert call(team, "PUT", "/people/alice/keys", wanted) == made
    assert call(team, "PUT", "/people/me/keys", wanted, token="token-of-alice") == made
    (seen,) = call(team, "GET", "/people/alice/keys")["items"]
    assert (seen["id"], seen["user"], seen["title"]) == (made["id"], "alice", "desk")
    for other in ({"title": "lap"}, {"expires_at": "2090-01-01T00:00:00Z"}):
        late = call(
            team, "PUT", "/people/alice/keys", {**wanted, **other}, status=422 if "expires_at" in other else 409
        )
        assert late["error"]["field"] in ("public_key", "expires_at")
    again = call(team, "PUT", "/people/alice/keys", {**wanted, "expires_at": "12h"}, status=422)
    assert "span" in again["error"]["message"]
    taken = call(team, "PUT", "/people/bob/keys", wanted, status=409)
    assert (taken["error"]["code"], "alice" in str(taken)) == ("key-taken", False)
    call(team, "PUT", "/people/nobody/keys", {"public_key": fresh_line()}, status=404)
    call(team, "PUT", "/people/olga/keys", {"public_key": fresh_line()}, token="token-of-alice", status=403)
    assert (
        call(team, "PUT", "/people/alice/keys", {"public_key": fresh_line()}, token="token-of-alice")["title"] is None
    )
    path = f"/api/keyrack/v1/people/alice/keys/{made['id']}"
    assert team.call("DELETE", path, token="token-of-bob").status_code == 403
    assert team.call("DELETE", path.replace("alice", "bob"), token="token-of-olga").status_code == 404
    assert team.call("DELETE", path, token="token-of-olga").status_code == 204
    assert call(team, "GET", "/people/me/keys", token="token-of-alice")["total"] == 1
