"""Ends of keys and grants: however they are written, renewed under one id, announced once; after them no way back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from keyrack.core.hosts import documents
from keyrack.core.instance import Instance
from keyrack.core.keys import credentials, endings
from keyrack.core.people.actors import system_actor
from keyrack.protocol import host_document
from keyrack.ssh.public_key import parse
from tests.core.keys_for_tests import fresh_line
from tests.services import Service
from tests.web.test_native import call

HOUR = timedelta(hours=1)
ALICE = "token-of-alice"
KEYS = "/servers/web-1/credentials"


def later(instance: Instance, by: timedelta) -> Instance:
    """The same instance some time on."""
    at = instance.now() + by
    return replace(instance, now=lambda: at)


def new_key(line: str | None = None, **terms: Any) -> dict[str, Any]:
    """The body of a key for web-1; each key is named after itself."""
    line = line or fresh_line()
    return {"label": parse(line).fingerprint[7:20], "username": "deploy", "public_key": line, **terms}


def lasting(shown: dict[str, Any]) -> timedelta:
    """How long something lasts from now on."""
    return datetime.fromisoformat(shown["expires_at"]) - datetime.now(UTC)


def makers(team: Service) -> dict[str, Callable[..., Any]]:
    """Every call that takes an end: gets the terms, answers what was made."""

    def on_many(**terms: Any) -> Any:
        line = fresh_line()
        many = {"label": parse(line).fingerprint[7:20], "username": "deploy", "publicKey": line, "servers": ["web-1"]}
        status = terms.pop("status", 201)
        made = call(team, "POST", "/credentials", {**many, **terms}, status=200 if status == 201 else status)
        return made if status != 201 else call(team, "GET", KEYS + "?per_page=200")["items"][-1]

    def of(path: str, body: Callable[[], dict[str, Any]], token: str = "token-of-olga") -> Callable[..., Any]:
        def make(status: int = 201, **terms: Any) -> Any:
            return call(team, "POST", path, {**body(), **terms}, token=token, status=status)

        return make

    grant = {"user": "alice", "server": "web-1", "system_user": "deploy"}
    return {
        "credential": of(KEYS, new_key),
        "many": on_many,
        "grant": of("/grants", lambda: grant),
        "own key": of("/people/me/keys", lambda: {"public_key": fresh_line()}, ALICE),
        "token": of("/tokens", lambda: {"name": "ci", "scopes": ["servers:read"]}),
    }


def test_every_call_takes_ends_in_the_same_forms(team: Service) -> None:
    at = (datetime.now(UTC) + 36 * HOUR).astimezone().isoformat(timespec="seconds")
    for name, make in makers(team).items():
        for written, length in (("90m", 1.5 * HOUR), ("12h", 12 * HOUR), ("1d12h", 36 * HOUR), (at, 36 * HOUR)):
            for field in ("expires_at", "duration"):
                assert abs(lasting(make(**{field: written})) - length) < timedelta(minutes=1), (name, field, written)
        for written, words in (
            ("2m", "write 2min for minutes, or 60d"),
            ("1y", "write 365d"),
            ("5", "names no unit"),
            ("2026-12-24T18:00", "names no zone"),
            ("soon", "takes a span"),
            ("2001-01-01T00:00:00Z", "past already"),
            ("20000d", "ten years"),
        ):
            for field in ("expires_at", "duration"):
                error = make(status=422, **{field: written})["error"]
                assert (error["field"], words in error["message"]) == (field, True), (name, field, written, error)
        assert "either expires_at or duration" in make(status=422, expires_at="1h", duration="1h")["error"]["message"]


def test_a_span_begins_when_the_grant_does(team: Service) -> None:
    start = (datetime.now(UTC) + 48 * HOUR).strftime("%Y-%m-%dT%H:%M:%SZ")
    body = {"user": "alice", "server": "web-1", "system_user": "deploy", "starts_at": start, "duration": "1h"}
    made = call(team, "POST", "/grants", body, status=201)
    assert abs(lasting(made) - 49 * HOUR) < timedelta(minutes=1)


def test_an_end_is_renewed_under_the_same_id_and_sent_to_the_host(team: Service) -> None:
    held = {
        "credentials": call(team, "POST", KEYS, new_key(duration="1h"), status=201),
        "keys": call(team, "POST", "/people/me/keys", {"public_key": fresh_line()}, token=ALICE, status=201),
        "grants": call(
            team, "POST", "/grants", {"user": "alice", "server": "web-1", "system_user": "deploy"}, status=201
        ),
    }
    for kind, one in held.items():
        path = f"/{kind}/{one['id']}/renew"
        before = call(team, "GET", "/servers/web-1")["wanted"]
        renewed = call(team, "POST", path, {"duration": "3h"}, token=ALICE if kind == "keys" else "token-of-olga")
        assert (renewed["id"], abs(lasting(renewed) - 3 * HOUR) < timedelta(minutes=1)) == (one["id"], True)
        assert call(team, "GET", "/servers/web-1")["wanted"] > before
        assert "Say for how long" in call(team, "POST", path, {}, status=422)["error"]["message"]
        assert "2min" in call(team, "POST", path, {"duration": "2m"}, status=422)["error"]["message"]
        call(team, "POST", f"/{kind}/99999/renew", {"duration": "3h"}, status=404)
        call(team, "POST", path, {"duration": "3h"}, token="token-of-bob", status=404 if kind == "keys" else 403)
    signed = documents.signed(team.instance, 1)
    assert signed is not None
    delivered = host_document.decode(signed.text).users["deploy"]
    ends = [entry.expires_at - team.instance.now() for entry in delivered if entry.expires_at is not None]
    assert [abs(end - 3 * HOUR) < timedelta(minutes=1) for end in ends] == [True] * len(delivered) == [True, True]


def test_an_end_is_announced_once_and_again_after_a_renewal(team: Service) -> None:
    key = call(team, "POST", KEYS, new_key(duration="2d"), status=201)
    grant = {"user": "alice", "server": "web-1", "system_user": "deploy", "duration": "2d"}
    call(team, "POST", "/grants", grant, status=201)
    call(team, "POST", "/people/me/keys", {"public_key": fresh_line(), "duration": "2d"}, token=ALICE, status=201)
    assert endings.announce(team.instance, system_actor()) == 0
    assert endings.announce(later(team.instance, 35 * HOUR), system_actor()) == 0
    soon = later(team.instance, 37 * HOUR)
    assert [endings.announce(soon, system_actor()) for _ in range(2)] == [3, 0]
    found = call(team, "GET", "/events?search=renew+it+before")["items"]
    assert [(one["level"], one["summary"].split(" (")[0][:10]) for one in found[::-1]] == [
        ("warning", "SSH key " + key["label"][:2]),
        ("warning", "SSH key wi"),
        ("warning", "Grant 1 of"),
    ]
    call(team, "POST", f"/credentials/{key['id']}/renew", {"duration": "5d"})
    assert endings.announce(soon, system_actor()) == 0
    assert endings.announce(later(team.instance, 97 * HOUR), system_actor()) == 1
    never = replace(soon, settings=replace(soon.settings, notice_hours=0))
    assert endings.announce(never, system_actor()) == 0


def test_the_end_of_a_short_access_is_announced_in_its_last_quarter(team_on_each: Service) -> None:
    team, minute = team_on_each, HOUR / 60

    def announced(after: timedelta) -> int:
        return endings.announce(later(team.instance, after), system_actor())

    key = call(team, "POST", KEYS, new_key(duration="1h"), status=201)
    grant = {"user": "alice", "server": "web-1", "system_user": "deploy", "duration": "1h"}
    held = call(team, "POST", "/grants", grant, status=201)
    start = (datetime.now(UTC) + 12 * HOUR).strftime("%Y-%m-%dT%H:%M:%SZ")
    call(team, "POST", "/grants", {**grant, "starts_at": start}, status=201)
    own = {"public_key": fresh_line(), "duration": "1h"}
    mine = call(team, "POST", "/people/me/keys", own, token=ALICE, status=201)
    assert [announced(0 * minute), announced(44 * minute), announced(46 * minute)] == [0, 0, 3]
    # The grant that begins later is not told to be renewed before it began.
    assert [announced(12 * HOUR + 44 * minute), announced(12 * HOUR + 46 * minute)] == [0, 1]
    # What lasts long is renewed for an hour, and that hour counts.
    call(team, "POST", f"/credentials/{key['id']}/renew", {"duration": "300d"})
    call(team, "POST", f"/credentials/{key['id']}/renew", {"duration": "2h"})
    call(team, "POST", f"/grants/{held['id']}/renew", {"duration": "2h"})
    call(team, "POST", f"/keys/{mine['id']}/renew", {"duration": "2h"}, token=ALICE)
    assert [announced(0 * minute), announced(89 * minute), announced(91 * minute)] == [0, 0, 3]


@pytest.mark.parametrize("swept", [False, True])
def test_a_key_whose_end_came_is_not_taken_again_unless_policy_allows(team: Service, *, swept: bool) -> None:
    lines = {kind: fresh_line() for kind in ("credential", "user key", "temporary")}
    call(team, "POST", KEYS, new_key(lines["credential"], duration="1h"), status=201)
    call(team, "POST", KEYS, new_key(lines["temporary"], temporary=True), status=201)
    mine = {"public_key": lines["user key"], "duration": "1h"}
    call(team, "POST", "/people/me/keys", mine, token=ALICE, status=201)
    call(team, "PUT", "/servers/web-2", {"address": "192.0.2.11"})
    call(team, "PUT", "/servers/web-2/system-users/deploy")
    elsewhere = KEYS.replace("web-1", "web-2")
    after = later(team.instance, 13 * HOUR)
    if swept:
        assert credentials.end_expired(after, system_actor()) == 2
        assert endings.end_user_keys(after, system_actor()) == 1
        assert call(team, "GET", "/people/me/keys", token=ALICE)["items"] == []
    object.__setattr__(team.instance, "now", after.now)
    for kind in ("credential", "user key"):
        again = new_key(lines[kind]) | {"label": f"again {kind}"}
        many = {key: again[key] for key in ("label", "username")} | {"publicKey": lines[kind], "servers": "all"}
        own = {"public_key": lines[kind]}
        for path, body in ((KEYS, again), (elsewhere, again), ("/credentials", many), ("/people/me/keys", own)):
            refused = call(team, "POST", path, body, status=422)["error"]
            assert (refused["code"], "readd_expired_keys" in refused["message"]) == ("key-expired", True), path
    call(team, "POST", KEYS, new_key(lines["temporary"], temporary=True), status=201)
    allowed = replace(team.instance.settings, readd_expired_keys=True)
    object.__setattr__(team.instance, "settings", allowed)
    call(team, "POST", KEYS, new_key(lines["credential"]), status=201)


def test_access_opened_by_a_request_is_removed_after_its_end(team: Service) -> None:
    wanted = {"server": "web-1", "system_user": "deploy", "duration": "1h", "reason": "a look"}
    asked = call(team, "POST", "/requests", wanted, token=ALICE, status=201)
    opened = call(team, "POST", f"/requests/{asked['id']}/approve")
    other = {"user": "alice", "server": "web-1", "system_user": "deploy", "duration": "1h"}
    kept = call(team, "POST", "/grants", other, status=201)
    early = call(team, "POST", "/requests", wanted, token=ALICE, status=201)
    taken = call(team, "POST", f"/requests/{early['id']}/approve")["grant_id"]
    assert team.call("DELETE", f"/api/keyrack/v1/grants/{taken}", token="token-of-olga").status_code == 204
    assert [endings.close_requests(team.instance, system_actor()) for _ in range(2)] == [1, 0]
    after = later(team.instance, 2 * HOUR)
    assert [endings.close_requests(after, system_actor()) for _ in range(2)] == [1, 0]
    assert [one["id"] for one in call(team, "GET", "/grants")["items"]] == [kept["id"]]
    assert {one["state"] for one in call(team, "GET", "/requests?state=ended")["items"]} == {"ended"}
    (logged,) = call(team, "GET", "/events?search=opened+by+a+request")["items"]
    assert logged["summary"].startswith(f"Grant {opened['grant_id']} ")
