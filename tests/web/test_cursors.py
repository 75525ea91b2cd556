"""Lists that are gone through by cursor: whole, in order, also while they grow, and no page skips rows."""

from __future__ import annotations

from typing import Any

import pytest

from keyrack.store.engine import prepared
from tests.services import Service
from tests.web.test_native import call

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


@pytest.mark.parametrize("cursor", ["nonsense", "WyJ4Il0", "WzEsMl0"])
def test_what_is_no_cursor_is_refused(team: Service, cursor: str) -> None:
    error = call(team, "GET", f"/people?cursor={cursor}", status=422)["error"]
    assert (error["field"], error["code"]) == ("cursor", "cursor-unknown")


def test_no_page_skips_rows(team: Service) -> None:
    asked: list[str] = []
    first = call(team, "GET", "/people?per_page=2&cursor=")
    prepared.listeners.append(lambda sql, values: asked.append(sql))
    try:
        call(team, "GET", f"/people?per_page=2&cursor={first['next']}")
    finally:
        prepared.listeners.pop()
    (listing,) = [sql for sql in asked if "FROM users" in sql and "ORDER BY users.id" in sql]
    assert "users.id > " in listing


def test_the_owner_of_the_instance_sees_the_tokens_of_all_workspaces(team: Service) -> None:
    found = [(one["workspace"], one["user"]) for page in pages(team, "/instance/tokens") for one in page]
    assert found == [*(("acme", name) for name in PEOPLE), ("umbrella", "victor")]
    for token in ("token-of-victor", "token-of-audrey", "token-of-alice"):
        call(team, "GET", "/instance/tokens", token=token, status=403)
