"""Shapes of Keyrack's own API: what is sent is held to its model, and the field at fault is named."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import click
import pytest
from pydantic import BaseModel

import keyrack
from keyrack.cli import audit
from keyrack.core.audit import events
from keyrack.model import AUTO, ENFORCE, OBSERVE, OfflineAction
from keyrack.protocol.document_words import DROP_ALL, DROP_TEMPORARY, KEEP_ALL
from keyrack.web.console import pages_activity
from keyrack.web.native import api as native
from keyrack.web.native import shapes_audit
from keyrack.web.native import shapes_servers as servers
from keyrack.web.openapi import openapi
from keyrack.web.server import DESCRIBED
from tests.core.keys_for_tests import fresh_line
from tests.services import Service
from tests.web.test_native import call

GRANT = {"user": "alice", "server": "web-1", "system_user": "deploy"}
KEY = {"label": "laptop", "username": "deploy", "public_key": "ssh-ed25519 AAAA"}


@pytest.mark.parametrize(
    ("path", "body", "field", "words"),
    [
        ("/grants", {"user": "alice", "server": "web-1"}, "system_user", "system_user is needed."),
        ("/grants", {**GRANT, "system_user": 5}, "system_user", "system_user takes a text."),
        ("/grants", {**GRANT, "server": True}, "server", "server takes a text or a whole number."),
        ("/grants", {**GRANT, "expires_at": 1795363200}, "expires_at", "expires_at takes a text."),
        ("/grants", {**GRANT, "restrictions": ["pty"]}, "restrictions", "restrictions takes an object."),
        ("/grants", {**GRANT, "sytem_user": "root"}, "body", "There is no field sytem_user. This call takes: user,"),
        ("/servers/1/credentials", {**KEY, "temporary": "yes"}, "temporary", "temporary takes true or false."),
        ("/servers/1/credentials", {**KEY, "temporary": 1}, "temporary", "temporary takes true or false."),
        ("/servers/1/resync", {"let_in": "SHA256:x"}, "let_in", "let_in takes a list."),
        ("/servers/1/resync", {"let_in": ["SHA256:x", 7]}, "let_in", "let_in.1 takes a text."),
        ("/servers/1/enrolments", {"ttl": 5}, "body", "There is no field ttl. This call takes: replace."),
        ("/servers/1/copy-gone", {"ttl": 5}, "body", "This call takes no body."),
    ],
)
def test_the_wrong_field_is_named(team: Service, path: str, body: dict[str, Any], field: str, words: str) -> None:
    error = call(team, "POST", path, body, status=422)["error"]
    assert error["field"] == field
    assert words in error["message"]


def test_an_error_does_not_repeat_what_was_sent(team: Service) -> None:
    secret = "-----BEGIN OPENSSH PRIVATE KEY-----"
    for body in ({**KEY, "public_key": [secret]}, {**KEY, secret: 1}, {**KEY, "temporary": secret}, {secret: secret}):
        answer = team.call("POST", "/api/keyrack/v1/servers/1/credentials", token="token-of-olga", json=body)
        assert answer.status_code == 422
        assert "PRIVATE" not in answer.text


def test_a_caller_without_the_right_is_not_told_what_a_body_lacks(team: Service) -> None:
    wrong = {"nothing": True}
    call(team, "POST", "/grants", wrong, token="token-of-mallory", status=403)
    call(team, "POST", "/servers/1/credentials", wrong, token="token-of-mallory", status=403)
    call(team, "POST", "/servers/1/credentials", wrong, token="token-of-victor", status=404)
    call(team, "PATCH", "/servers/nowhere", wrong, status=404)
    call(team, "PATCH", "/repositories/1", wrong, token="token-of-bob", status=404)


def test_a_body_that_is_refused_leaves_an_event(team: Service) -> None:
    call(team, "POST", "/grants", {"user": "alice"}, status=422)
    call(team, "POST", "/grants", {"user": "alice"}, token="token-of-mallory", status=403)
    found = call(team, "GET", "/events?search=body+is+not")["items"]
    assert {(one["actor"], one["action"], one["outcome"]) for one in found} == {
        ("olga", "grants:write", "refused"),
        ("mallory", "grants:write", "refused"),
    }


@pytest.mark.parametrize("query", ["page=+1", "page=1.0", "page=-1", "per_page=201", "page=1_0", "page=99999999999"])
def test_a_page_is_a_plain_number(team: Service, query: str) -> None:
    error = call(team, "GET", f"/servers?{query}", status=422)["error"]
    assert error["field"] == query.partition("=")[0]
    assert "whole number from 1 to" in error["message"]


def test_an_empty_page_is_the_first(team: Service) -> None:
    shown = call(team, "GET", "/servers?page=&per_page=")
    assert (shown["page"], shown["per_page"]) == (1, 50)
    assert call(team, "GET", "/events?before=&from=&to=")["items"]


def test_a_server_is_named_by_its_number_too(team: Service) -> None:
    made = call(team, "POST", "/grants", {**GRANT, "server": 1}, status=201)
    assert made["server"] == "web-1"


def test_a_key_is_answered_as_it_is_described(team: Service) -> None:
    body = {"label": "desk", "username": "deploy", "public_key": fresh_line()}
    answer = team.call("POST", "/api/keyrack/v1/servers/1/credentials", token="token-of-olga", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (201, "application/json")
    assert answer.json()["public_key"] == body["public_key"]


def test_each_field_has_its_meaning_and_an_example() -> None:
    described = _models()
    assert len(described) > 30
    for name, schema in described.items():
        assert "__" not in name, f"two models are called alike: {name}"
        assert schema["description"], name
        for field, kind in schema["properties"].items():
            assert kind.get("description"), f"{name}.{field} says not what it means"
            parts = [kind, *kind.get("anyOf", ()), kind.get("items", {})]
            assert any("examples" in part or "$ref" in part for part in parts), f"{name}.{field} has no example"


def test_each_call_has_models() -> None:
    for endpoint in native.ENDPOINTS:
        place = f"{endpoint.method} {endpoint.path}"
        assert (endpoint.answers is None) == (endpoint.status == 204), place
        for model in (endpoint.takes, endpoint.asks, endpoint.answers):
            assert model is None or issubclass(model, BaseModel), place


def test_the_words_of_models_are_those_of_the_core() -> None:
    assert set(get_args(OfflineAction)) == {KEEP_ALL, DROP_TEMPORARY, DROP_ALL}
    mode = get_args(servers.ServerChange.model_fields["mode"].annotation)[0]
    assert set(get_args(mode)) == {OBSERVE, ENFORCE, AUTO}


SOURCE = Path(str(keyrack.__file__)).parent


def test_each_kind_of_event_can_be_asked_for_everywhere() -> None:
    kind = next(one for one in audit.list_audit.params if one.name == "kind")
    assert isinstance(kind, click.Option)
    described = shapes_audit.EventsAsked.model_fields["kind"].description
    for name in (*events.KINDS, events.REFUSED, events.ALARM):
        assert name in dict(pages_activity.KINDS), f"the console's log is not filtered by {name}"
        assert name in str(kind.help), f"the help of `keyrack audit list --kind` does not name {name}"
        assert name in str(described), name


def test_events_can_be_filtered_by_every_kind_of_target() -> None:
    named = (re.findall(r'target_kind="([^"]+)"', file.read_text()) for file in SOURCE.rglob("*.py"))
    about = {kind for kinds in events.KINDS.values() for kind in kinds}
    # What a call or a page would have been about was not known when it was refused.
    assert set().union(*named) - {"call", "page"} <= about


def _models() -> dict[str, Any]:
    schemas = openapi(DESCRIBED, "https://keyrack.example.org")["components"]["schemas"]
    return {name: schema for name, schema in schemas.items() if name.startswith("native.")}
