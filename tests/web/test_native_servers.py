"""Servers by name in Keyrack's own API: made, brought to what is wanted, and never half made."""

from __future__ import annotations

from tests.services import Service
from tests.web.test_native import call


def test_a_server_is_brought_to_what_is_wanted(team_on_each: Service) -> None:
    team = team_on_each
    wanted = {"address": "192.0.2.11", "tags": ["web", "eu"], "mode": "observe", "system_users": ["deploy", "backup"]}
    made = call(team, "PUT", "/servers/web-2", wanted)
    assert (made["name"], made["address"], sorted(made["tags"]), made["mode"]) == (
        *("web-2", "192.0.2.11", ["eu", "web"], "observe"),
    )
    call(team, "POST", "/grants", {"user": "alice", "server": "web-2", "system_user": "backup"}, status=201)
    told = len(call(team, "GET", "/events?server=web-2&per_page=200")["items"])
    assert call(team, "PUT", "/servers/web-2", wanted)["id"] == made["id"]
    assert len(call(team, "GET", "/events?server=web-2&per_page=200")["items"]) == told, "nothing is done twice"
    moved = call(team, "PUT", f"/servers/{made['id']}", {"address": "192.0.2.12", "tags": []})
    assert (moved["address"], moved["tags"], moved["mode"]) == ("192.0.2.12", [], "observe")
    assert call(team, "GET", "/servers?per_page=10")["total"] == 2


def test_what_is_no_server_leaves_none(team: Service) -> None:
    for path, body, field in (
        ("/servers/web-3", {}, "address"),
        ("/servers/web-3", {"address": "no address"}, "address"),
        ("/servers/web-3", {"address": "192.0.2.13", "tags": ["not a tag"]}, "tags"),
        ("/servers/web-3", {"address": "192.0.2.13", "system_users": ["deploy", "-x"]}, "username"),
        ("/servers/4711", {"address": "192.0.2.13"}, "name"),
        ("/servers/web-3", {"address": "192.0.2.13", "mode": "perhaps"}, "mode"),
    ):
        assert call(team, "PUT", path, body, status=422)["error"]["field"] == field, body
    assert call(team, "GET", "/servers")["total"] == 1
    call(team, "PUT", "/servers/web-3", {"address": "192.0.2.13"}, token="token-of-mallory", status=403)
