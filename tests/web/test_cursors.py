"""Lists that are gone through by cursor: whole, in order, also while they grow, and no page skips rows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from keyrack.core import cursors
from keyrack.ssh.public_key import parse
from keyrack.web.native import api as native
from tests.core.keys_for_tests import fresh_line
from tests.core.test_unmanaged_keys import entry
from tests.services import Service
from tests.statements import prepared_statements
from tests.web.test_native import call, tell

PEOPLE = ["olga", "alice", "bob", "mallory", "audrey"]


def pages(team: Service, path: str, per_page: int = 2) -> list[list[Any]]:
    """All pages of a list."""
    found, cursor = [], ""
    while True:
        page = call(team, "GET", f"{path}{'&' if '?' in path else '?'}per_page={per_page}&cursor={cursor}")
        found.append(page["items"])
        cursor = page["next"]
        if cursor is None:
            return found


def test_every_page_follows_the_one_before(team_on_each: Service) -> None:
    team = team_on_each
    assert [[one["name"] for one in page] for page in pages(team, "/people")] == [
        PEOPLE[:2],
        PEOPLE[2:4],
        PEOPLE[4:],
    ]
    assert [[one["name"] for one in page] for page in pages(team, "/people?search=AL")] == [["alice", "mallory"]]
    names = [f"group {number}" for number in range(7)]
    for name in reversed(names):
        call(team, "PUT", f"/groups/{name}", {"members": []})
    assert [one["name"] for page in pages(team, "/groups", 3) for one in page] == names
    first = call(team, "GET", "/groups?per_page=3&cursor=")
    call(team, "PUT", "/groups/a new first", {"members": []})
    assert team.call("DELETE", "/api/keyrack/v1/groups/group 2", token="token-of-olga").status_code == 204
    second = call(team, "GET", f"/groups?per_page=3&cursor={first['next']}")
    assert [one["name"] for one in second["items"]] == names[3:6]
    for _ in range(3):
        call(team, "POST", "/grants", {"user": "alice", "all": True, "system_user": "root"}, status=201)
    assert [[one["id"] for one in page] for page in pages(team, "/grants")] == [[1, 2], [3]]


def test_every_list_can_be_read_by_cursor(team_on_each: Service) -> None:
    """Whole, each item once, as by page."""
    team = team_on_each
    tell(team, *(entry(fresh_line(name), line=number + 1) for number, name in enumerate("cab")))
    for number in range(3):
        line = fresh_line()
        body = {"label": f"key {number}", "username": "deploy", "public_key": line}
        call(team, "POST", "/servers/1/credentials", body, status=201)
        call(team, "POST", "/people/me/keys", {"title": f"desk {number}", "public_key": fresh_line()}, status=201)
        call(team, "POST", "/keys/revoke", {"fingerprint": parse(line).fingerprint}) if number else None
        asked = {"server": "web-1", "system_user": "deploy", "duration": "1h", "reason": f"release {number}"}
        call(team, "POST", "/requests", asked, token="token-of-alice", status=201)
        call(team, "POST", "/credentials/revoke", {"label": f"key {number}", "servers": "all"}) if number else None
        body = {"label": f"other {number}", "username": "deploy", "public_key": fresh_line()}
        call(team, "POST", "/servers/1/credentials", body, status=201)
        new = {"name": f"site{number}", "project_uuid": "aa2d97d7e62c4b7da3ffdfc11551f878"}
        created = team.call("POST", "/v1/repositories", json=new, headers={"X-Auth-Token": "token-of-olga"})
        assert created.status_code == 200, created.text
    for name in ("bob", "mallory"):
        call(team, "POST", f"/people/{name}/offboard", {}, status=202)
    listed = [
        one for one in native.ENDPOINTS if one.method == "GET" and one.answers and "next" in one.answers.model_fields
    ]
    paged = [one.path for one in listed if one.asks and "page" in one.asks.model_fields]
    assert len(paged) >= 15
    for path in (one.replace("{server}", "web-1").replace("{person}", "olga") for one in paged):
        whole = call(team, "GET", f"{path}?per_page=200")
        assert whole["items"] or "unmanaged" not in path, path
        found = pages(team, path, 1)
        assert [one for page in found for one in page if page] == whole["items"], path
        assert len(whole["items"]) == whole["total"] == len([page for page in found if page]), path
        assert call(team, "GET", f"{path}?cursor=")["total"] is None, path


@pytest.mark.parametrize("cursor", ["nonsense", "WyJ4Il0", "WzEsMl0", "WyJcdWQ4MDAiXQ", "WyJcdTAwMDAiXQ", "WzFlMzAwXQ"])
def test_an_invalid_cursor_is_refused(team: Service, cursor: str) -> None:
    for path in ("/people", "/groups", "/keys/revoked"):
        if (path, cursor) != ("/groups", "WyJ4Il0"):
            error = call(team, "GET", f"{path}?cursor={cursor}", status=422)["error"]
            assert (error["field"], error["code"]) == ("cursor", "cursor-unknown")


PLACES = f"/keys/places?fingerprint={parse(fresh_line()).fingerprint}"


def test_a_cursor_of_another_list_is_refused(team: Service) -> None:
    """It would name a place in this list too, and leave out what stands before that."""
    of_people = call(team, "GET", "/people?per_page=2&cursor=")["next"]
    assert call(team, "GET", f"/people?cursor={of_people}")["items"]
    for path in ("/grants", "/servers", "/groups", "/access?user=alice", PLACES, "/keys/findings", "/instance/tokens"):
        mark = "&" if "?" in path else "?"
        assert call(team, "GET", f"{path}{mark}cursor={of_people}", status=422)["error"]["code"] == "cursor-unknown"


def test_no_page_skips_or_counts_rows(team: Service) -> None:
    first = call(team, "GET", "/people?per_page=2&cursor=")
    with prepared_statements() as asked:
        call(team, "GET", f"/people?per_page=2&cursor={first['next']}")
    (listing,) = [sql for sql in asked if "FROM users" in sql and "ORDER BY users.id" in sql]
    assert "users.id > " in listing
    assert not [sql for sql in asked if "count(" in sql.lower()]


def test_the_owner_of_the_instance_sees_the_tokens_of_all_workspaces(team: Service) -> None:
    found = [(one["workspace"], one["user"]) for page in pages(team, "/instance/tokens") for one in page]
    assert found == [*(("acme", name) for name in PEOPLE), ("umbrella", "victor")]
    for token in ("token-of-victor", "token-of-audrey", "token-of-alice"):
        call(team, "GET", "/instance/tokens", token=token, status=403)


def test_a_cursor_and_a_page_at_once_are_refused(team: Service) -> None:
    """The page was left out without a word."""
    for query in ("cursor=&page=2", "page=3&cursor="):
        answer = team.call("GET", f"/api/keyrack/v1/people?{query}", token="token-of-olga")
        assert (answer.status_code, answer.json()["error"]["field"]) == (422, "page")
    # As a client sends it that was generated, where nobody named a page.
    call(team, "GET", "/people?page=1&cursor=")


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("access_keys", ["\ud800"]),
        ("access_keys", ["a\udfff"]),
        ("access_keys", ["\0"]),
        ("server_tags", [1, "\ud800"]),
        ("server_tags", [2**63, "web"]),
        ("server_tags", [1.5, "web"]),
        ("server_tags", [True, "web"]),
        ("missing", ["users", 2**63]),
        ("missing", ["users", -(2**70)]),
    ],
)
def test_an_invented_cursor_of_damaged_rows_is_refused(team_on_each: Service, table: str, key: Any) -> None:
    mark = cursors.list_tag("/damaged-rows") + cursors.write((table, json.dumps(key)))
    answer = team_on_each.call("GET", f"/api/keyrack/v1/damaged-rows?cursor={mark}", token="token-of-olga")
    assert answer.status_code in (200, 422), answer.text
    assert answer.status_code == 422 or table == "missing"
