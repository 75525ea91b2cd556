"""Who can log in where, as Keyrack's own API answers it, and that hosts are told the same."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from sqlalchemy import text

from keyrack.core.hosts import documents
from keyrack.core.keys import grants, who_can
from keyrack.core.people import actors, users
from keyrack.ssh.public_key import parse
from keyrack.store.hosts import host_reports
from tests.core.keys_for_tests import fresh_line
from tests.services import Service
from tests.web.test_native import call


def own_key(team: Service, name: str) -> str:
    """A new key of a user's own."""
    line = fresh_line()
    headers = {"X-Auth-Token": f"token-of-{name}"}
    assert team.call("POST", "/v4/user/keys", headers=headers, json={"key": line}).status_code == 201
    return line


def delivered(team: Service, server: int = 1) -> dict[str, set[str]]:
    """The keys of each account of a host's document."""
    signed = documents.signed(team.instance, server)
    assert signed is not None
    entries_by_user = json.loads(signed.text)["users"]
    return {name: {parse(entry["key"]).fingerprint for entry in entries} for name, entries in entries_by_user.items()}


def answered(found: Any) -> dict[str, set[str]]:
    """The same of an answer."""
    by_account: dict[str, set[str]] = {}
    for item in found["items"]:
        by_account.setdefault(item["system_user"], set()).add(item["fingerprint"])
    return by_account


def test_every_listed_login_is_in_the_hosts_document(team: Service) -> None:
    line = own_key(team, "alice")
    print_ = parse(line).fingerprint
    end = (team.instance.now() + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    direct = {"user": "alice", "server": "web-1", "system_user": "deploy", "expires_at": end, "reason": "release 12"}
    by_name = call(team, "POST", "/grants", direct, status=201)
    assert {**call(team, "GET", f"/grants/{by_name['id']}"), "note": None} == by_name
    assert by_name["reason"] == "release 12"
    by_all = call(team, "POST", "/grants", {"user": "alice", "all": True, "system_user": "root"}, status=201)
    entered = {"label": "spare", "username": "runcloud", "public_key": line}
    key = call(team, "POST", "/servers/web-1/credentials", entered, status=201)
    other = {"label": "nobody's", "username": "runcloud", "public_key": fresh_line()}
    call(team, "POST", "/servers/web-1/credentials", other, status=201)
    at = team.instance.now()
    team.instance.database.write(lambda conn: host_reports.note_uses(conn, 1, [(print_, at, "198.51.100.3")]))
    found = call(team, "GET", "/access?server=web-1")
    assert answered(found) == delivered(team)
    mine = [item for item in found["items"] if item["fingerprint"] == print_]
    assert {(item["system_user"], item["via"]["kind"], item["via"]["id"], item["user"]) for item in mine} == {
        ("deploy", "grant", by_name["id"], "alice"),
        ("root", "grant", by_all["id"], "alice"),
        ("runcloud", "credential", key["id"], "alice"),
    }
    assert {item["last_used_at"] is not None for item in mine} == {True}
    (unowned,) = [item for item in found["items"] if item["fingerprint"] != print_]
    assert (unowned["user"], unowned["via"]["label"]) == (None, "nobody's")
    (shown,) = call(team, "GET", "/access?server=web-1&system_user=deploy")["items"]
    assert (shown["expires_at"], shown["via"]["reason"]) == (end, "release 12")
    assert call(team, "GET", "/access?user=alice")["items"] == mine
    assert call(team, "GET", "/access?user=alice", token="token-of-alice")["items"] == mine
    call(team, "GET", "/access?server=web-1", token="token-of-alice", status=403)
    assert call(team, "GET", "/access?user=alice", token="token-of-audrey")["items"] == mine
    call(team, "GET", "/access", status=422)
    call(team, "GET", "/access?user=nobody", status=404)
    call(team, "GET", "/access?server=nothing", status=404)


def test_pages_hold_everything_once(team: Service) -> None:
    for number in range(5):
        body = {"label": f"key-{number}", "username": "deploy", "public_key": fresh_line()}
        call(team, "POST", "/servers/web-1/credentials", body, status=201)
    whole = call(team, "GET", "/access?server=web-1")
    assert (len(whole["items"]), whole["next"]) == (5, None)
    items: list[Any] = []
    cursor: Any = ""
    while cursor is not None:
        page = call(team, "GET", f"/access?server=web-1&per_page=2&cursor={cursor}")
        items += page["items"]
        cursor = page["next"]
    assert items == whole["items"]
    for wrong in ("x", "bnVsbA", "WzEsMl0", "W10"):
        assert call(team, "GET", f"/access?server=web-1&cursor={wrong}", status=422)["error"]["field"] == "cursor"


def test_keys_that_open_nothing_are_not_listed(team: Service) -> None:
    own_key(team, "alice")
    own_key(team, "bob")
    for name in ("alice", "bob"):
        call(team, "POST", "/grants", {"user": name, "tag": "web", "system_user": "deploy"}, status=201)
    assert {item["user"] for item in call(team, "GET", "/access?server=web-1")["items"]} == {"alice", "bob"}
    actor = actors.system_actor(1)
    bob = next(one for one in users.find(team.instance, actor) if one.name == "bob")
    users.change(team.instance, actor, bob.id, enabled=False)
    assert call(team, "GET", "/access?user=bob")["items"] == []
    # Somebody who writes into the database alone opens nothing, and is not said to.
    altered = text("UPDATE grants SET \"system_user\" = 'root' WHERE id = 1")
    team.instance.database.write(lambda connection: connection.execute(altered))
    assert call(team, "GET", "/access?server=web-1")["items"] == []
    assert delivered(team) == {}


def test_a_grant_to_come_opens_from_its_start(team: Service) -> None:
    line = own_key(team, "alice")
    start = (team.instance.now() + timedelta(hours=1)).replace(microsecond=0)
    body = {"user": "alice", "server": "web-1", "system_user": "deploy", "starts_at": start.isoformat()}
    before = documents.signed(team.instance, 1)
    made = call(team, "POST", "/grants", body, status=201)
    assert made["starts_at"] == start.strftime("%Y-%m-%dT%H:%M:%SZ")
    after = documents.signed(team.instance, 1)
    assert before is not None
    assert after is not None
    assert (after.revision, delivered(team)) == (before.revision, {})
    assert call(team, "GET", "/access?user=alice")["items"] == []
    assert grants.begin(team.instance, actors.system_actor()) == 0
    late = replace(team.instance, now=lambda: start + timedelta(seconds=1))
    assert grants.begin(late, actors.system_actor()) == 1
    assert grants.begin(late, actors.system_actor()) == 0
    begun = documents.signed(late, 1)
    assert begun is not None
    assert begun.revision > before.revision
    assert parse(line).canonical in begun.text
    (way,) = who_can.find(late, actors.system_actor(1), user="alice").items
    assert way.reason.grant is not None
    assert way.reason.grant.id == made["id"]


def test_an_account_that_a_server_lacks_is_named(team: Service) -> None:
    found = call(team, "GET", "/access?server=web-1&system_user=deplyo")
    assert (found["items"], "no account 'deplyo'; it has runcloud, root, deploy." in found["note"]) == ([], True)
    assert call(team, "GET", "/access?server=web-1&system_user=deploy")["note"] is None
    assert call(team, "GET", "/access?user=alice&system_user=deplyo")["note"] is None


def test_a_call_is_rehearsed_by_its_whole_path_too(team: Service) -> None:
    own_key(team, "alice")
    body = {"user": "alice", "server": "web-1", "system_user": "deploy"}
    for path in ("/grants", "/api/keyrack/v1/grants"):
        seen = call(team, "POST", "/rehearsals", {"method": "POST", "path": path, "body": body})
        assert [one["user"] for one in seen["gains"]] == ["alice"]


def test_a_grant_is_put_once_however_often_it_is_asked_for(team_on_each: Service) -> None:
    team = team_on_each
    body = {"user": "alice", "tag": "web", "system_user": "deploy", "expires_at": "2035-01-01T00:00:00Z"}
    first = call(team, "PUT", "/grants", body)
    assert call(team, "PUT", "/grants", {**body, "reason": "again"}) == first
    other = call(team, "PUT", "/grants", {**body, "restrictions": {"sources": ["192.0.2.0/24"]}}, status=409)
    assert other["error"]["code"] == "terms-differ"
    call(team, "PUT", "/grants", {**body, "server": "web-1"}, status=422)
    call(team, "PUT", "/grants", {"user": "alice", "system_user": "deploy"}, status=422)
    call(team, "PUT", "/grants", body, token="token-of-alice", status=403)
    assert call(team, "PUT", "/grants", {"user": "alice", "all": True, "system_user": "deploy"})["id"] != first["id"]
    assert call(team, "GET", "/grants")["total"] == 2
    # One that others wrote into the database stands for nothing.
    written = text("UPDATE grants SET \"system_user\" = 'root'")
    team.instance.database.write(lambda connection: connection.execute(written))
    assert call(team, "PUT", "/grants", {**body, "system_user": "root"})["id"] > first["id"]


def test_any_token_may_ask_about_its_own_user(team: Service) -> None:
    own_key(team, "alice")
    call(team, "POST", "/grants", {"user": "alice", "server": "web-1", "system_user": "deploy"}, status=201)
    mine = call(team, "GET", "/access?user=me", token="token-of-alice")
    assert [one["user"] for one in mine["items"]] == ["alice"]
    assert mine == call(team, "GET", "/access?user=alice", token="token-of-alice")
    assert call(team, "GET", "/access?user=me", token="token-of-bob")["items"] == []


def test_the_places_of_a_key_are_listed_by_its_fingerprint(team: Service) -> None:
    line = next(one for one in iter(fresh_line, "") if "+" in parse(one).fingerprint)
    print_ = parse(line).fingerprint
    call(team, "GET", f"/keys/places?fingerprint={quote(print_, safe='')}", status=404)
    call(team, "POST", "/people/me/keys", {"title": "laptop", "public_key": line}, token="token-of-alice", status=201)
    call(team, "POST", "/grants", {"user": "alice", "all": True, "system_user": "root"}, status=201)
    entered = {"label": "spare", "username": "deploy", "public_key": line, "duration": "1h"}
    added = call(team, "POST", "/servers/web-1/credentials", entered, status=201)
    places = call(team, "GET", f"/keys/places?fingerprint={quote(print_, safe='')}")
    assert places == call(team, "GET", f"/keys/places?fingerprint={print_}"), "a + counts as it is written"
    assert [(one["kind"], one["server"], one["system_user"]) for one in places["items"]] == [
        ("user key", None, None),
        ("grant", "web-1", "root"),
        ("credential", "web-1", "deploy"),
    ]
    spare = places["items"][2]
    assert (spare["id"], spare["delivered"], spare["expires_at"]) == (added["id"], False, added["expires_at"])
    first = call(team, "GET", f"/keys/places?fingerprint={print_}&per_page=2")
    second = call(team, "GET", f"/keys/places?fingerprint={print_}&per_page=2&cursor={first['next']}")
    assert (first["items"] + second["items"], second["next"]) == (places["items"], None)
    own = call(team, "GET", f"/keys/places?fingerprint={print_}", token="token-of-alice")
    assert {one["kind"] for one in own["items"]} == {"user key", "grant", "credential"}, (
        "what alice's ways in tell, too"
    )
    call(team, "GET", f"/keys/places?fingerprint={print_}", token="token-of-victor", status=404)
    for wrong in ("", "SHA256:x", "x"):
        refused = call(team, "GET", f"/keys/places?fingerprint={wrong}", status=422)["error"]
        assert refused["field"] == "fingerprint"
    call(team, "POST", "/keys/revoke", {"fingerprint": print_})
    gone = call(team, "GET", f"/keys/places?fingerprint={print_}")
    assert (gone["items"], gone["next"]) == ([], None)
    assert gone["revoked_at"] is not None
