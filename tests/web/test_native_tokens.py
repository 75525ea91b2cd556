"""Keyrack's own API: tokens that are made and rotated, servers that move; through real HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from keyrack.core.workspace import apply as workspace_apply
from tests.services import TEAM, Service
from tests.web.test_native import call

ALICE = "token-of-alice"


def may(team: Service, token: str) -> bool:
    """Whether a token is in force, and may list servers."""
    return team.call("GET", "/api/keyrack/v1/servers", token=token).status_code == 200


def test_a_token_is_never_wider_than_its_maker(team: Service) -> None:
    made = call(team, "POST", "/tokens", {"name": "ci", "scopes": ["servers:read", "iam:self"]}, status=201)
    assert (made["user"], made["scopes"], made["replaces"]) == ("olga", ["servers:read", "iam:self"], None)
    assert may(team, made["token"])
    assert made["token"] not in str(call(team, "GET", "/tokens"))
    wide = call(team, "POST", "/tokens", {"name": "wide", "scopes": ["*"]}, token=made["token"], status=201)
    assert sorted(wide["scopes"]) == ["iam:self", "servers:read"]
    other = {"name": "x", "scopes": ["*"], "user": "olga"}
    assert call(team, "POST", "/tokens", other, token=ALICE, status=403)["error"]["code"] == "not-allowed"
    own = call(team, "POST", "/tokens", {"name": "own", "scopes": ["*"]}, token=ALICE, status=201)
    assert (own["user"], may(team, own["token"])) == ("alice", False)
    call(team, "POST", "/tokens", {"name": "none", "scopes": []}, status=422)


def test_putting_a_token_by_its_name_twice_changes_nothing(team: Service) -> None:
    wanted = {"name": "ci", "scopes": ["servers:read", "iam:self"], "expires_at": "2030-01-01T00:00:00Z"}
    first = call(team, "PUT", "/tokens", wanted)
    again = call(team, "PUT", "/tokens", wanted | {"scopes": ["iam:self", "servers:read"]})
    assert may(team, first["token"])
    assert (again["token"], again["id"], again["expires_at"]) == (None, first["id"], "2030-01-01T00:00:00Z")
    without_end = {name: wanted[name] for name in ("name", "scopes")}
    assert call(team, "PUT", "/tokens", without_end)["id"] == first["id"]
    assert call(team, "PUT", "/tokens", without_end | {"expires_at": "12h"})["token"] is None
    for other in ({"scopes": ["*"]}, {"expires_at": "2031-01-01T00:00:00Z"}):
        assert call(team, "PUT", "/tokens", wanted | other, status=409)["error"]["code"] == "terms-differ"
    # The same name is another's own business, and nobody sets up another's without the right to.
    assert call(team, "PUT", "/tokens", wanted, token=ALICE)["user"] == "alice"
    call(team, "PUT", "/tokens", wanted | {"user": "olga"}, token=ALICE, status=403)
    assert call(team, "PUT", "/tokens", wanted | {"user": "bob"})["user"] == "bob"
    team.call("DELETE", f"/api/keyrack/v1/tokens/{first['id']}", token="token-of-olga")
    anew = call(team, "PUT", "/tokens", wanted)
    assert (may(team, anew["token"]), may(team, first["token"])) == (True, False)


def test_a_token_is_rotated_with_an_overlap(team: Service) -> None:
    made = call(team, "POST", "/tokens", {"name": "ci", "scopes": ["servers:read", "iam:self"]}, status=201)
    new = call(team, "POST", f"/tokens/{made['id']}/rotate", {"overlap": "24h"}, token=made["token"], status=201)
    assert (new["replaces"], new["name"], new["scopes"]) == (made["id"], "ci", made["scopes"])
    assert new["replaced_ends_at"] is not None
    assert may(team, made["token"])
    assert may(team, new["token"])
    last = call(team, "POST", f"/tokens/{new['id']}/rotate", {}, status=201)
    assert may(team, last["token"])
    assert not may(team, new["token"])
    # Who rotates a token is shown its secret: nobody gets a wider one than what they hold.
    root = next(one for one in call(team, "GET", "/tokens")["items"] if one["name"] == "root")
    refused = call(team, "POST", f"/tokens/{root['id']}/rotate", {}, token=last["token"], status=403)
    assert refused["error"]["code"] == "exceeds-own-rights"
    call(team, "POST", f"/tokens/{root['id']}/rotate", {}, token=ALICE, status=403)


@pytest.mark.parametrize("overlap", ["", "2m", "1y", "31d", "-1h", "9999999d"])
def test_an_overlap_that_cannot_be(team: Service, overlap: str) -> None:
    made = call(team, "POST", "/tokens", {"name": "ci", "scopes": ["*"]}, status=201)
    refused = call(team, "POST", f"/tokens/{made['id']}/rotate", {"overlap": overlap}, status=422)
    assert refused["error"]["field"] == "overlap"
    assert may(team, made["token"])


def test_a_server_moves_under_its_id(team: Service) -> None:
    wanted: dict[str, Any] = {"name": "app-1", "address": "198.51.100.7", "provider": "hetzner", "tags": ["app"]}
    moved = call(team, "PATCH", "/servers/web-1", wanted)
    assert (moved["id"], moved["name"], moved["address"], moved["tags"]) == (1, "app-1", "198.51.100.7", ["app"])
    before = call(team, "GET", "/servers/1")["wanted"]
    assert call(team, "PATCH", "/servers/1", wanted)["wanted"] == before
    refused = call(team, "PATCH", "/servers/1", {"name": "half", "address": "not an address"}, status=422)
    assert refused["error"]["field"] == "address"
    assert call(team, "PATCH", "/servers/1", {"name": "half", "tags": ["no blank"]}, status=422)
    assert call(team, "GET", "/servers/1")["name"] == "app-1"
    count = call(team, "GET", "/servers")["total"]
    text = TEAM.replace('name = "web-1"\naddress = "192.0.2.10"', 'id = 1\nname = "app-1"\naddress = "198.51.100.7"')
    assert text != TEAM
    workspace_apply.apply(team.instance, text, {})
    assert call(team, "GET", "/servers")["total"] == count
