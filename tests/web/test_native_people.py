"""Keyrack's own API for grants, credentials, tokens, keys of users, repositories and dates in the audit log."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from keyrack.core.hosts import documents
from keyrack.ssh.public_key import parse
from keyrack.store.hosts import host_reports
from tests.core.keys_for_tests import fresh_line
from tests.services import TEAM, Service
from tests.web.test_native import call


def lines(team: Service) -> str:
    """The document of web-1."""
    signed = documents.signed(team.instance, 1)
    assert signed is not None
    return signed.text


def test_a_grant_is_given_and_taken_back(team: Service) -> None:
    line = fresh_line()
    added = team.call("POST", "/v4/user/keys", headers={"X-Auth-Token": "token-of-alice"}, json={"key": line})
    assert added.status_code == 201
    end = (team.instance.now() + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    body = {"user": "alice", "server": "web-1", "system_user": "deploy", "expires_at": end}
    made = call(team, "POST", "/grants", {**body, "restrictions": {"sources": ["192.0.2.0/24"]}}, status=201)
    assert (made["user"], made["server"], made["expires_at"]) == ("alice", "web-1", end)
    key = parse(line).canonical
    assert key in lines(team)
    assert "192.0.2.0/24" in lines(team)
    assert [one["id"] for one in call(team, "GET", "/grants")["items"]] == [made["id"]]
    assert team.call("DELETE", f"/api/keyrack/v1/grants/{made['id']}", token="token-of-olga").status_code == 204
    assert key in str(lines(team).partition('"revoked"')[2])
    assert call(team, "GET", "/grants")["total"] == 0
    call(team, "DELETE", f"/grants/{made['id']}", status=404)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"user": "nobody"}, "user"),
        ({"server": "nothing"}, "server"),
        ({"server": ["web-1"]}, "server"),
        ({"tag": "web"}, "server"),
        ({"system_user": "-x"}, "system_user"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"restrictions": {"fly": True}}, "restrictions"),
        ({"until": "2030"}, "body"),
    ],
)
def test_a_grant_that_cannot_be(team: Service, change: dict[str, Any], field: str) -> None:
    body = {"user": "alice", "server": "web-1", "system_user": "deploy", **change}
    assert call(team, "POST", "/grants", body, status=422)["error"]["field"] == field
    assert call(team, "GET", "/grants")["total"] == 0


def test_a_credential_with_an_end_and_restrictions(team: Service) -> None:
    line = fresh_line()
    end = (team.instance.now() + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    body = {"label": "ci", "username": "deploy", "public_key": line, "expires_at": end}
    made = call(team, "POST", "/servers/web-1/credentials", {**body, "restrictions": {"command": "true"}}, status=201)
    assert (made["expires_at"], made["restrictions"]["command"], made["last_used_at"]) == (end, "true", None)
    at = team.instance.now()
    use = (parse(line).fingerprint, at, "198.51.100.3")
    team.instance.database.write(lambda connection: host_reports.note_uses(connection, 1, [use]))
    # The same key on somebody else's server is nobody's business here.
    team.instance.database.write(
        lambda connection: host_reports.note_uses(connection, 2, [(use[0], at, "203.0.113.99")])
    )
    listed = call(team, "GET", "/servers/1/credentials")["items"]
    assert [(one["id"], one["last_used_from"]) for one in listed] == [(made["id"], "198.51.100.3")]
    gone = team.call("DELETE", f"/api/keyrack/v1/servers/1/credentials/{made['id']}", token="token-of-olga")
    assert gone.status_code == 204
    assert call(team, "GET", "/servers/1/credentials")["total"] == 0


def test_keys_of_users_and_where_they_were_used(team: Service) -> None:
    line = fresh_line()
    assert (
        team.call("POST", "/v4/user/keys", headers={"X-Auth-Token": "token-of-alice"}, json={"key": line}).status_code
        == 201
    )
    at = team.instance.now()
    for place, address in ((0, "198.51.100.1"), (1, "198.51.100.2"), (2, "198.51.100.3")):
        use = (parse(line).fingerprint, at, address)
        team.instance.database.write(
            lambda connection, where=place, one=use: host_reports.note_uses(connection, where, [one])  # type: ignore[misc]
        )
    (shown,) = call(team, "GET", "/user-keys?user=alice")["items"]
    assert shown["user"] == "alice"
    assert {(use["server"], use["address"]) for use in shown["last_uses"]} == {
        ("git", "198.51.100.1"),
        ("web-1", "198.51.100.2"),
    }
    call(team, "GET", "/user-keys?user=nobody", status=404)
    call(team, "GET", "/user-keys", token="token-of-alice", status=403)


def test_tokens_are_listed_and_revoked(team: Service) -> None:
    listed = {one["user"]: one for one in call(team, "GET", "/tokens")["items"]}
    assert set(listed) == {"olga", "alice", "bob", "mallory", "audrey"}
    assert listed["olga"]["last_used_at"] is not None
    assert listed["bob"]["last_used_at"] is None
    assert "token-of" not in str(listed)
    path = f"/api/keyrack/v1/tokens/{listed['bob']['id']}"
    assert team.call("DELETE", path, token="token-of-alice").status_code == 403
    assert team.call("DELETE", path, token="token-of-victor").status_code == 404
    assert team.call("DELETE", path, token="token-of-olga").status_code == 204
    assert team.call("GET", "/v4/user/keys", headers={"X-Auth-Token": "token-of-bob"}).status_code == 401
    assert team.call("DELETE", path, token="token-of-olga").status_code == 404


def test_a_default_branch_is_protected(team: Service) -> None:
    team.apply(TEAM + '[[repositories]]\npath = "acme/site"\nmembers = [{ user = "alice", role = "admin" }]\n')
    assert call(team, "GET", "/repositories/1")["protect_default"] is False
    call(team, "PATCH", "/repositories/1", {"protect_default": True}, token="token-of-bob", status=404)
    assert call(team, "PATCH", "/repositories/1", {"protect_default": True})["protect_default"] is True
    assert call(team, "PATCH", "/repositories/1", {"protect_default": "yes"}, status=422)["error"]["field"]
    changed = call(team, "PATCH", "/repositories/1", {"protect_default": False}, token="token-of-alice")
    assert changed["protect_default"] is False


def test_the_log_is_read_by_dates_and_by_pages(team: Service) -> None:
    for number in range(5):
        call(team, "PUT", "/servers/1/offline-policy", {"after_seconds": 60 * (number + 1), "then": "keep"})
    everything = [one["id"] for one in call(team, "GET", "/events?per_page=200")["items"]]
    pieces: list[int] = []
    before = ""
    while True:
        some = call(team, "GET", f"/events?per_page=3{before}")["items"]
        if not some:
            break
        pieces += [one["id"] for one in some]
        before = f"&before={pieces[-1]}"
    assert pieces == everything
    today = team.instance.now().date()
    tomorrow = today + timedelta(days=2)
    assert call(team, "GET", f"/events?from={today}&per_page=200")["total"] >= 5
    assert call(team, "GET", f"/events?to={today - timedelta(days=2)}")["total"] == 0
    assert call(team, "GET", f"/events?from={tomorrow}")["total"] == 0
    assert call(team, "GET", "/events?from=2026-01-01T00:00:00%2B02:00&to=2026-01-02T00:00:00+02:00")["total"] == 0
    for query in ("from=yesterday", "to=2026-13-01", "from=2026-11-22T16:00:00", "before=x", "form=2026-11-22"):
        assert call(team, "GET", f"/events?{query}", status=422)["error"]["code"] in ("invalid", "parameter-unknown")
    assert call(team, "GET", "/events?key=abc", status=422)["error"]["field"] == "key"
    backwards = call(team, "GET", f"/events?from={today}&to={today - timedelta(days=2)}", status=422)["error"]
    assert (backwards["field"], "ends before it begins" in backwards["message"]) == ("to", True)


@pytest.mark.parametrize("path", ["/servers", "/grants", "/tokens", "/keys/revoked", "/servers/1"])
def test_an_unknown_parameter_is_refused(team: Service, path: str) -> None:
    assert call(team, "GET", f"{path}?serach=x", status=422)["error"]["code"] == "parameter-unknown"


def test_a_change_to_the_same_leaves_no_event(team: Service) -> None:
    def rename(name: str) -> None:
        body = {"name": name}
        path = "/api/v3/servers/1/settings/meta"
        assert team.call("PATCH", path, token="token-of-olga", json=body).status_code == 200

    rename("shop-1")
    before = call(team, "GET", "/events")
    rename("shop-1")
    assert call(team, "GET", "/events")["total"] == before["total"]
    assert before["items"][0]["summary"] == "Renamed host web-1 to shop-1"
