"""A body that is JSON is JSON, whatever a program that named no type had it called; real forms stay forms."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from keyrack.web.server import APIS
from tests.core.keys_for_tests import fresh_line
from tests.services import Service

FORM = "application/x-www-form-urlencoded"
HEADERS = {"X-Auth-Token": "token-of-alice", "Authorization": "Bearer token-of-olga"}
CALLS = sorted(
    (prefix, endpoint.method, re.sub(r"\{\w+\}", "999", endpoint.path))
    for prefix, dialect in APIS
    for endpoint in dialect.endpoints
    if endpoint.method in ("POST", "PUT", "PATCH")
)
KEYS = "/api/v3/servers/1/ssh/credentials"


def sent(service: Service, method: str, path: str, content: str, kind: str | None, **headers: str) -> Any:
    """Status and body of a request with this type, or with none."""
    named = {"Content-Type": kind} if kind else {}
    answer = service.call(method, path, content=content.encode(), headers={**headers, **named})
    body = answer.json() if answer.content else None
    if isinstance(body, dict):
        body.pop("request_id", None)
    return answer.status_code, body


@pytest.mark.parametrize("kind", [None, FORM, f"{FORM}; charset=UTF-8", "text/plain;charset=UTF-8"])
def test_a_key_and_a_token_as_curl_and_fetch_send_them(team: Service, kind: str | None) -> None:
    token = {"X-Auth-Token": "token-of-alice"}
    body = json.dumps({"title": "desk", "key": fresh_line()})
    status, key = sent(team, "POST", "/v4/user/keys", body, kind, **token)
    assert (status, key["title"]) == (201, "desk")
    user = {"name": "alice", "password": "alice's password", "domain": {"name": "acme"}}
    body = json.dumps({"auth": {"identity": {"methods": ["password"], "password": {"user": user}}}})
    assert sent(team, "POST", "/v3/auth/tokens", body, kind)[0] == 201
    status, key = sent(
        team,
        "POST",
        KEYS,
        json.dumps({"label": "desk", "username": "deploy", "publicKey": fresh_line(), "temporary": True}),
        kind,
        Authorization="Bearer token-of-olga",
    )
    assert (status, key["temporary"]) == (200, True)


def test_every_call_takes_json_alike(team: Service) -> None:
    for prefix, method, path in CALLS:
        headers = dict(HEADERS)
        if not prefix.startswith("/api"):
            del headers["Authorization"]
        answers = []
        for kind in ("application/json", None, FORM):
            status, body = sent(team, method, prefix + path, '{"nothing": 1}', kind, **headers)
            # Each makes an object of its own where one is made at all.
            answers.append((status, body if status >= 400 else sorted(body)))
        assert answers[0] == answers[1] == answers[2], (method, prefix, path)


def test_a_form_is_accepted_by_runclouds_api_alone(team: Service) -> None:
    form = {"label": "desk", "username": "deploy", "publicKey": fresh_line(), "temporary": "1"}
    answer = team.call("POST", KEYS, token="token-of-olga", data=form)
    assert (answer.status_code, answer.json()["temporary"]) == (200, True)
    status, body = sent(team, "POST", "/v4/user/keys", "title=desk&key=x", FORM, **{"X-Auth-Token": "token-of-alice"})
    assert (status, body["error_code"]) == (400, "CH.010001")
    status, body = sent(team, "POST", "/v4/user/keys", "{}", "text/html", **{"X-Auth-Token": "token-of-alice"})
    assert (status, body["error_code"]) == (400, "CH.010001")


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity"])
def test_a_number_that_no_answer_can_hold_is_refused_before_anything_is_done(team: Service, number: str) -> None:
    body = f'{{"title": {number}, "key": null}}'
    status, _ = sent(team, "POST", "/v4/user/keys", body, "application/json", **{"X-Auth-Token": "token-of-alice"})
    assert status == 400
    listed = team.call("GET", "/v4/user/keys", headers={"X-Auth-Token": "token-of-alice"}).json()
    assert listed["total"] == 0
