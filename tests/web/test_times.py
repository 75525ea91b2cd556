"""Times and spans as every API takes them: one reader, and words with an example where it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.keys_for_tests import fresh_line
from tests.services import Service
from tests.web.test_native import OLGA, call

GRANT = {"user": "alice", "server": "web-1", "system_user": "deploy"}
KEY = {"label": "desk", "username": "deploy", "public_key": fresh_line()}
BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "expires_at of a grant": ("/grants", GRANT),
    "starts_at of a grant": ("/grants", GRANT),
    "expires_at of a key on a server": ("/servers/1/credentials", KEY),
    "expires_at of a key on many": ("/credentials", {**KEY, "servers": "all"}),
    "expires_at of a user's key": ("/people/me/keys", {"title": "desk", "public_key": fresh_line()}),
    "expires_at of a token": ("/tokens", {"name": "ci", "scopes": ["servers:read"]}),
    "duration of a request": ("/requests", {"server": "web-1", "system_user": "deploy", "reason": "a look"}),
}
BAD = ("2099-W52-4T10:00Z", "2026-358T10:00Z", "2026-12-24T18", "20261224T180000Z", "2026-12-24T18:00:00,5Z")


@pytest.mark.parametrize("where", BODIES)
def test_a_time_of_another_shape_is_refused_with_an_example(unchanged_team: Service, where: str) -> None:
    path, body = BODIES[where]
    field = where.partition(" ")[0]
    for bad in (*BAD, "2026-12-24T24:00Z", "2026-12-24T18:00:00+23:59"):
        said = call(unchanged_team, "POST", path, {**body, field: bad}, status=422)["error"]
        assert said["field"] == field
        assert "like 2026-12-24T" in said["message"], bad


def test_invalid_times_are_refused_in_queries_and_in_gitlabs_api(unchanged_team: Service) -> None:
    for bad in BAD:
        said = call(unchanged_team, "GET", f"/events?from={bad}", status=422)["error"]
        assert "like 2026-12-24T18:00:00+01:00" in said["message"]
        key = {"title": "desk", "key": fresh_line(), "expires_at": bad}
        answer = unchanged_team.call("POST", "/api/v4/user/keys", token=OLGA, json=key)
        assert (answer.status_code, answer.json()) == (400, {"error": "expires_at is invalid"}), bad
    assert call(unchanged_team, "GET", "/events?from=2026-11-22T16:00:00+01:00&to=2026-11-22")["items"] == []
