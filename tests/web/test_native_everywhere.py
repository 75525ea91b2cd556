"""Keyrack's own API for one key on many servers: what is answered, refused."""

from __future__ import annotations

from typing import Any

import pytest

from keyrack.ssh.public_key import fingerprint_of
from tests.core.keys_for_tests import fresh_line
from tests.services import Service
from tests.web.test_native import call

MORE = """
[workspace]
name = "acme"
[[servers]]
name = "web-2"
address = "192.0.2.11"
system_users = ["deploy"]
tags = ["web"]
[[servers]]
name = "db-1"
address = "192.0.2.12"
"""


def test_a_key_comes_to_many_servers_is_replaced_and_goes(team: Service) -> None:
    team.apply(MORE)
    line = fresh_line()
    body: dict[str, Any] = {"label": "bot", "username": "deploy", "publicKey": line, "servers": {"tag": "web"}}
    for state in ("added", "present"):
        items = call(team, "POST", "/credentials", body)["items"]
        assert [(one["server"], one["state"]) for one in items] == [("web-1", state), ("web-2", state)]
        assert all(one["id"] for one in items)
    new = fresh_line()
    items = call(team, "POST", "/credentials/replace", {"fingerprint": fingerprint_of(line), "publicKey": new})["items"]
    assert [one["state"] for one in items] == ["replaced", "replaced"]
    shown = call(team, "GET", f"/servers/{items[1]['server_id']}/credentials")["items"]
    assert [(one["label"], one["fingerprint"]) for one in shown] == [("bot", fingerprint_of(new))]
    body = {"fingerprint": fingerprint_of(new), "servers": ["web-2", "db-1"]}
    items = call(team, "POST", "/credentials/revoke", body)["items"]
    assert [(one["server"], one["state"]) for one in items] == [("web-2", "revoked"), ("db-1", "absent")]
    assert call(team, "GET", "/servers/1/credentials")["total"] == 1


def test_a_key_is_taken_under_either_spelling_of_its_field(team: Service) -> None:
    line = fresh_line()
    placed = {"label": "bot", "username": "deploy", "servers": "all"}
    assert call(team, "POST", "/credentials", {**placed, "public_key": line})["items"][0]["state"] == "added"
    both = call(team, "POST", "/credentials", {**placed, "public_key": line, "publicKey": line}, status=422)
    assert both["error"]["code"] == "field-unknown"
    mine = {"title": "laptop", "publicKey": fresh_line()}
    assert call(team, "POST", "/people/me/keys", mine, status=201)["title"] == "laptop"
    wanted = {"label": "desk", "username": "deploy", "publicKey": fresh_line()}
    assert call(team, "POST", "/servers/web-1/credentials", wanted, status=201)["label"] == "desk"
    assert call(team, "POST", "/keys/challenge", {"publicKey": line}, status=201)["challenge"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/credentials", {"label": "bot", "username": "deploy", "servers": "all"}),
        ("/credentials/replace", {"fingerprint": fingerprint_of(fresh_line())}),
        ("/servers/web-1/credentials", {"label": "bot", "username": "deploy"}),
        ("/people/me/keys", {}),
        ("/keys/challenge", {}),
    ],
)
def test_an_error_in_a_key_names_the_documented_field(team: Service, path: str, body: dict[str, Any]) -> None:
    refused = call(team, "POST", path, {**body, "publicKey": "no key"}, status=422)["error"]
    lacking = call(team, "POST", path, body, status=422)["error"]
    assert (refused["field"], lacking["field"]) == ("public_key", "public_key")


@pytest.mark.parametrize(
    "chosen", [None, 1, "web-1", {}, {"tags": "web"}, {"tag": None}, [], [{}], [""], [None], [1.5]]
)
def test_an_invalid_choice_of_servers_is_refused(team: Service, chosen: object) -> None:
    body = {"label": "bot", "username": "deploy", "publicKey": fresh_line(), "servers": chosen}
    call(team, "POST", "/credentials", body, status=422)
    assert call(team, "GET", "/servers/1/credentials")["total"] == 0


def test_the_server_that_prevents_adding_a_key_is_named(team: Service) -> None:
    team.apply(MORE)
    body = {"label": "bot", "username": "deploy", "publicKey": fresh_line(), "servers": "all"}
    refused = call(team, "POST", "/credentials", body, status=422)
    assert "db-1" in refused["error"]["message"]
    assert call(team, "GET", "/servers/1/credentials")["total"] == 0
    call(team, "POST", "/credentials", body, token="token-of-audrey", status=403)


@pytest.mark.parametrize("servers", [[], ["web-1", ""]])
def test_a_list_of_servers_holds_at_least_one(unchanged_team: Service, servers: list[str]) -> None:
    body = {"label": "bot", "username": "deploy", "publicKey": fresh_line(), "servers": servers}
    words = call(unchanged_team, "POST", "/credentials", body, status=422)["error"]["message"]
    assert "at least one" in words if not servers else "1 to 20000 names" in words
