"""A grant is changed under its id: restrictions, end, reason; hosts are told, and only who saw it changes it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from keyrack.core.hosts import documents
from tests.core.keys_for_tests import fresh_line
from tests.services import Service
from tests.web.test_native import call

SOURCES = {"sources": ["192.0.2.0/24"]}


def give(team: Service, **more: Any) -> int:
    """A grant of alice, who has a key, on web-1; answers its id."""
    call(
        team, "POST", "/people/me/keys", {"title": "t", "public_key": fresh_line()}, token="token-of-alice", status=201
    )
    body = {"user": "alice", "server": "web-1", "system_user": "deploy", **more}
    return int(call(team, "POST", "/grants", body, status=201)["id"])


def patch(team: Service, grant: int, body: Any, tag: str | None = None) -> httpx2.Response:
    """A change, of what was seen with this tag."""
    headers = {} if tag is None else {"If-Match": tag}
    path = f"/api/keyrack/v1/grants/{grant}"
    return team.call("PATCH", path, token="token-of-olga", json=body, headers=headers)


def document(team: Service) -> str:
    signed = documents.signed(team.instance, 1)
    assert signed is not None
    return signed.text


def test_a_changed_restriction_or_end_is_sent_to_the_host(team_on_each: Service) -> None:
    team = team_on_each
    grant = give(team, expires_at="2h", reason="release 12")
    before = call(team, "GET", "/servers/1")["wanted"]
    made = patch(team, grant, {"restrictions": SOURCES}).json()
    assert (made["id"], made["restrictions"]["sources"], made["reason"]) == (grant, ["192.0.2.0/24"], "release 12")
    assert made["expires_at"] is not None
    assert call(team, "GET", "/servers/1")["wanted"] == before + 1
    assert "192.0.2.0/24" in document(team)
    assert patch(team, grant, {"expires_at": None, "restrictions": None}).json()["expires_at"] is None
    assert "192.0.2.0/24" not in document(team)
    assert patch(team, grant, {"duration": "1h", "reason": None}).json()["reason"] is None
    (way,) = call(team, "GET", "/access?user=alice")["items"]
    assert (way["restrictions"], way["expires_at"] is not None) == ({}, True)
    (event,) = call(team, "GET", "/events?search=restricted+to+from")["items"]
    assert 'restricted to from="192.0.2.0/24" (it was to nothing)' in event["summary"]


def test_changing_a_grant_to_what_it_is_already_leaves_no_event(team: Service) -> None:
    grant = give(team, restrictions=SOURCES, reason="why")
    wanted, events = call(team, "GET", "/servers/1")["wanted"], call(team, "GET", "/events")["items"]
    for body in ({"restrictions": SOURCES}, {"reason": "why"}, {"expires_at": None}):
        assert patch(team, grant, body).status_code == 200
    assert call(team, "GET", "/servers/1")["wanted"] == wanted
    assert call(team, "GET", "/events")["items"] == events
    # Nobody on a host is concerned by a reason.
    assert patch(team, grant, {"reason": "another"}).json()["reason"] == "another"
    assert call(team, "GET", "/servers/1")["wanted"] == wanted


def test_one_of_many_who_saw_the_same_grant_changes_it(team_on_each: Service) -> None:
    team = team_on_each
    grant = give(team)
    tag = team.call("GET", f"/api/keyrack/v1/grants/{grant}", token="token-of-olga").headers["ETag"]
    with ThreadPoolExecutor(8) as pool:
        ends = list(pool.map(lambda n: patch(team, grant, {"reason": f"r{n}"}, tag).status_code, range(8)))
    assert sorted(ends) == [200, *(412,) * 7]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"),
        ({"restrictions": {"sources": ["nowhere at all"]}}, "restrictions"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "12h", "duration": "12h"}, "duration"),
        ({"duration": "2m"}, "duration"),
        ({"reason": "x" * 1001}, "reason"),
        ({"server": "web-1"}, "body"),
    ],
)
def test_a_refused_change_of_a_grant_names_the_field(team: Service, body: dict[str, Any], field: str) -> None:
    refused = patch(team, give(team), body)
    assert (refused.status_code, refused.json()["error"]["field"]) == (422, field)


def test_a_grant_cannot_end_before_it_starts_and_strangers_cannot_change_one(team: Service) -> None:
    grant = give(team, starts_at="2030-01-01T00:00:00Z")
    assert patch(team, grant, {"duration": "1h"}).json()["error"]["message"] == "It would end before it starts."
    path = f"/api/keyrack/v1/grants/{grant}"
    for token, status in (("token-of-victor", 404), ("token-of-audrey", 403), ("token-of-alice", 403)):
        assert team.call("PATCH", path, token=token, json={"reason": "x"}).status_code == status


def test_a_dry_run_says_who_would_keep_a_login_with_other_terms(team: Service) -> None:
    grant = give(team)
    wanted = {"method": "PATCH", "path": f"/grants/{grant}", "body": {"restrictions": SOURCES}}
    shown = call(team, "POST", "/rehearsals", wanted)
    assert [one["user"] for one in shown["changes"]] == ["alice"]
    assert call(team, "GET", f"/grants/{grant}")["restrictions"] == {}
