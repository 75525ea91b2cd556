"""Servers by name in Keyrack's own API: made, brought to what is wanted, and never half made."""

from __future__ import annotations

from keyrack.core.hosts import enrolment, servers
from keyrack.core.people import actors
from tests.core.keys_for_tests import fresh_line
from tests.services import Service
from tests.web.test_native import OLGA, call


def test_putting_a_server_sets_what_is_wanted(team_on_each: Service) -> None:
    team = team_on_each
    wanted = {"address": "192.0.2.11", "tags": ["web", "eu"], "mode": "observe", "system_users": ["deploy", "backup"]}
    made = call(team, "PUT", "/servers/web-2", wanted)
    assert (made["name"], made["address"], sorted(made["tags"]), made["mode"]) == (
        *("web-2", "192.0.2.11", ["eu", "web"], "observe"),
    )
    call(team, "POST", "/grants", {"user": "alice", "server": "web-2", "system_user": "backup"}, status=201)
    events_before = len(call(team, "GET", "/events?server=web-2&per_page=200")["items"])
    assert call(team, "PUT", "/servers/web-2", wanted)["id"] == made["id"]
    assert len(call(team, "GET", "/events?server=web-2&per_page=200")["items"]) == events_before, (
        "nothing is done twice"
    )
    call(team, "POST", "/grants", {"user": "alice", "tag": "eu", "system_user": "backup"}, status=201)
    newest = call(team, "GET", "/events?server=web-2")["items"][0]["summary"]
    assert newest == "Let alice log in as backup on hosts with the tag eu"
    moved = call(team, "PUT", f"/servers/{made['id']}", {"address": "192.0.2.12", "tags": []})
    assert (moved["address"], moved["tags"], moved["mode"]) == ("192.0.2.12", [], "observe")
    assert call(team, "GET", "/servers?per_page=10")["total"] == 2


def test_the_log_is_asked_for_a_server_that_was_deleted(team_on_each: Service) -> None:
    team = team_on_each
    ids = {}
    for name in ("old-1", "old-2"):
        ids[name] = call(team, "PUT", f"/servers/{name}", {"address": "192.0.2.20"})["id"]
    secret = servers.invite(team.instance, actors.system_actor(1), ids["old-1"])
    enrolment.enrol(team.instance, secret, {}, address="192.0.2.20")
    for name in ids:
        assert team.call("DELETE", f"/api/keyrack/v1/servers/{name}", token=OLGA).status_code == 204
    summaries = [one["summary"] for one in call(team, "GET", "/events?server=old-1")["items"]]
    assert any("old-1" in one for one in summaries)
    assert summaries == [one["summary"] for one in call(team, "GET", f"/events?server={ids['old-1']}")["items"]]
    # Of one without a host no name is noted, but its events have its id.
    refused = call(team, "GET", "/events?server=old-2", status=404)["error"]
    assert (refused["code"], "by the id that its events have" in refused["message"]) == ("server-missing", True)
    assert call(team, "GET", f"/events?server={ids['old-2']}")["items"]
    call(team, "GET", "/events?server=4711", status=404)
    # Its name is another's now: the one that is there is meant.
    again = call(team, "PUT", "/servers/old-1", {"address": "192.0.2.21"})["id"]
    assert {one["server_id"] for one in call(team, "GET", "/events?server=old-1")["items"]} == {again}


def test_an_invalid_server_is_not_made(team: Service) -> None:
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


def test_accounts_are_added_and_removed_by_name(team_on_each: Service) -> None:
    team = team_on_each
    path = "/servers/web-1/system-users"
    first = call(team, "PUT", f"{path}/ops")
    assert call(team, "PUT", f"{path}/ops") == first, "what is there stays as it is"
    assert [one["username"] for one in call(team, "GET", path)["items"]][-2:] == ["deploy", "ops"]
    call(team, "PUT", f"{path}/no%20name", status=422)
    call(team, "PUT", f"{path}/guest", token="token-of-audrey", status=403)
    call(
        team,
        "POST",
        "/servers/1/credentials",
        {"label": "a", "username": "ops", "public_key": fresh_line()},
        status=201,
    )
    body = {"method": "DELETE", "path": f"{path}/ops"}
    assert [one["system_user"] for one in call(team, "POST", "/rehearsals", body)["loses"]] == ["ops"]
    assert team.call("DELETE", f"/api/keyrack/v1{path}/ops", token=OLGA).status_code == 204
    assert call(team, "DELETE", f"{path}/ops", status=404)["error"]["hint"]
    assert call(team, "GET", "/servers/1/credentials")["items"] == []


def test_a_server_and_a_repository_are_deleted(team: Service) -> None:
    line = {"label": "a", "username": "deploy", "public_key": fresh_line()}
    call(team, "POST", "/servers/web-1/credentials", line, status=201)
    looked = call(team, "POST", "/rehearsals", {"method": "DELETE", "path": "/servers/web-1"})
    assert [(one["server"], one["system_user"]) for one in looked["loses"]] == [("web-1", "deploy")]
    call(team, "DELETE", "/servers/web-1", token="token-of-alice", status=403)
    tag = team.call("GET", "/api/keyrack/v1/servers/web-1", token=OLGA).headers["ETag"]
    for sent, status in (('"other"', 412), (tag, 204)):
        gone = team.call("DELETE", "/api/keyrack/v1/servers/web-1", token=OLGA, headers={"If-Match": sent})
        assert gone.status_code == status
    call(team, "GET", "/servers/web-1", status=404)
    made = call(team, "PUT", "/repositories", {"path": "acme/old"})
    call(team, "DELETE", f"/repositories/{made['id']}", token="token-of-mallory", status=403)
    assert team.call("DELETE", f"/api/keyrack/v1/repositories/{made['id']}", token=OLGA).status_code == 204
    call(team, "GET", f"/repositories/{made['id']}", status=404)
