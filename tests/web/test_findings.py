"""Keys that should go are found: weak, old, unused and unowned ones, on all pages, and no others."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from keyrack.ssh.public_key import parse
from keyrack.store import tables
from keyrack.store.hosts import host_reports
from keyrack.store.sealing import sealed
from tests.core.keys_for_tests import fresh_line
from tests.services import Service
from tests.web.test_native import call

KEYS = "/servers/web-1/credentials"


def found(team: Service, query: str = "") -> dict[str, set[str]]:
    """What is wrong with each key, by its name."""
    items: list[Any] = []
    cursor = ""
    while True:
        page = call(team, "GET", f"/keys/findings?per_page=1{query}&cursor={cursor}")
        items += page["items"]
        if page["next"] is None:
            return {one["name"]: set(one["findings"]) for one in items}
        cursor = page["next"]


def test_each_kind_of_finding_is_found_and_no_other(team: Service) -> None:
    lines = {name: fresh_line() for name in ("owned", "robot", "short", "old", "busy", "gone")}
    own = {"title": "owned", "public_key": lines["owned"]}
    call(team, "POST", "/people/me/keys", own, token="token-of-alice", status=201)
    for name, line in lines.items():
        body = {"label": f"{name} key", "username": "deploy", "public_key": line}
        if name == "gone":
            body["expires_at"] = "1h"
        call(team, "POST", KEYS, body, status=201)
    assert found(team) == {f"{name} key": {"unowned"} for name in ("robot", "short", "old", "busy", "gone")}
    now = team.instance.now() + timedelta(days=100)
    object.__setattr__(team.instance, "now", lambda: now)
    busy = (parse(lines["busy"]).fingerprint, now - timedelta(days=1), "203.0.113.7")
    team.instance.database.write(lambda c: host_reports.note_uses(c, 1, [busy]))
    year = now - timedelta(days=400)
    row = sealed.row_of(4)
    team.instance.database.write(lambda c: sealed.change(c, tables.credentials, row, values={"created_at": year}))
    assert found(team, "&kind=unused") == {
        name: {"unused"} for name in ("owned key", "owned", "robot key", "short key", "old key")
    }
    assert found(team, "&kind=old") == {"old key": {"old"}}
    assert found(team, "&kind=old,unowned&old_days=1")["busy key"] == {"old", "unowned"}
    assert found(team, "&kind=weak") == {}
    rules = replace(team.instance.key_rules, types=frozenset({"ssh-rsa"}))
    object.__setattr__(team.instance, "key_rules", rules)
    assert found(team, "&kind=weak").keys() == {"owned", *(f"{name} key" for name in lines if name != "gone")}
    call(team, "GET", "/keys/findings?kind=ugly", status=422)
    call(team, "GET", "/keys/findings", token="token-of-alice", status=403)
    assert call(team, "GET", "/keys/findings", token="token-of-victor")["items"] == []


def test_keys_of_a_disabled_user_belong_to_nobody(team: Service) -> None:
    line = fresh_line()
    call(team, "POST", "/people/me/keys", {"title": "mine", "public_key": line}, token="token-of-alice", status=201)
    assert found(team, "&kind=unowned") == {}
    call(team, "PATCH", "/people/alice", {"disabled": True})
    assert found(team, "&kind=unowned") == {"mine": {"unowned"}}


def test_pages_go_from_server_to_server(team: Service) -> None:
    servers = ("web-1", "db-1", "web-1", "db-1")
    call(team, "PUT", "/servers/db-1", {"address": "192.0.2.77", "system_users": ["deploy"]})
    for number, server in enumerate(servers):
        body = {"label": f"key {number}", "username": "deploy", "public_key": fresh_line()}
        call(team, "POST", f"/servers/{server}/credentials", body, status=201)
    assert found(team) == {f"key {number}": {"unowned"} for number in range(len(servers))}
