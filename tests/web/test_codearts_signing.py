"""Requests signed by hand over HTTP: what must hold, what must not, and the bar after five wrong guesses."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from keyrack.core.instance import utc_now
from tests.core.keys_for_tests import fresh_line
from tests.services import TEAM, Service, running, settings_for
from tests.web.hand_signed import call, date
from tests.web.sdk.clients import AccessKey, make_access_key, make_temporary_key

JSON = {"Content-Type": "application/json"}
BODY = json.dumps({"title": "büro 🔑", "key": None}, ensure_ascii=False).encode()
MINUTE = timedelta(minutes=1)


@pytest.fixture
def key(team: Service) -> AccessKey:
    return make_access_key(team)


VALID: dict[str, dict[str, Any]] = {
    "only the date": {},
    "date and host": {"signed": ["host", "x-sdk-date"]},
    "content type": {"headers": JSON, "signed": ["Content-Type", "Host", "X-Sdk-Date"]},
    "query as sent": {"query": "offset=0&limit=5&query=b%C3%BCro%20%2B&empty="},
    "query unsorted, a name without =": {"query": "query=x&limit=5&flag&offset=0"},
    "query encoded in lower case": {"query": "query=b%c3%bcro"},
    "trailing slash": {"path": "/v4/user/keys/"},
    "path encoded": {"path": "/v4/user/%6Beys"},
    "14 minutes old": {"at": 14},
    "14 minutes ahead": {"at": -14},
    "a header that is not ASCII": {"headers": {"X-Team": "büro 🔑"}, "signed": ["x-sdk-date", "x-team"]},
    "post": {"method": "POST", "body": BODY, "headers": JSON, "signed": ["content-type", "x-sdk-date"]},
    "post with its hash": {
        "method": "POST",
        "body": BODY,
        "headers": {**JSON, "X-Sdk-Content-Sha256": hashlib.sha256(BODY).hexdigest()},
        "signed": ["x-sdk-content-sha256", "x-sdk-date"],
    },
    "post with an unsigned body": {
        "method": "POST",
        "body": BODY,
        "headers": {**JSON, "X-Sdk-Content-Sha256": "UNSIGNED-PAYLOAD"},
        "signed": ["x-sdk-content-sha256", "x-sdk-date"],
        "body_hash": "UNSIGNED-PAYLOAD",
    },
}


def dated(given: dict[str, Any]) -> dict[str, Any]:
    """With the date as text; in the table it is minutes into the past."""
    return {**given, "at": date(-given["at"] * MINUTE)} if "at" in given else given


@pytest.mark.parametrize("given", VALID.values(), ids=VALID)
def test_valid_signatures(team: Service, key: AccessKey, given: dict[str, Any]) -> None:
    answer = call(team, key, **dated(given))
    assert answer.status_code in (200, 201), answer.text


SIGNED_TYPE = {"headers": JSON, "signed": ["content-type", "x-sdk-date"]}
FORGED: dict[str, dict[str, Any]] = {
    "16 minutes old": {"at": 16},
    "16 minutes ahead": {"at": -16},
    "date not signed": {"signed": ["host"]},
    "no date": {"sent": {"headers": {"X-Sdk-Date": None}}},
    "another date": {"sent": {"headers": {"X-Sdk-Date": date(MINUTE)}}},
    "query added": {"sent": {"query": "limit=1"}},
    "query changed": {"query": "limit=1", "sent": {"query": "limit=2"}},
    "another path": {"sent": {"path": "/v4/user/repositories"}},
    "body changed": {"method": "POST", "body": BODY, **SIGNED_TYPE, "sent": {"body": BODY.replace(b"null", b'"x"')}},
    "body added": {"sent": {"body": b"{}"}},
    "a signed header changed": {**SIGNED_TYPE, "sent": {"headers": {"Content-Type": "application/json;charset=utf-8"}}},
    "a signed header gone": {
        "headers": {"X-Team": "a"},
        "signed": ["x-team", "x-sdk-date"],
        "sent": {"headers": {"X-Team": None}},
    },
    "a hash that lies": {
        "method": "POST",
        "body": b"{}",
        "headers": {**JSON, "X-Sdk-Content-Sha256": hashlib.sha256(b"{}").hexdigest()},
        "sent": {"body": BODY},
    },
    "another algorithm": {
        "sent": {"headers": {"Authorization": f"SDK-HMAC-SM3 Access=A, SignedHeaders=x-sdk-date, Signature={'0' * 64}"}}
    },
    "a derived key": {
        "sent": {"headers": {"Authorization": "V11-HMAC-SHA256 Credential=A, SignedHeaders=x-sdk-date, Signature=0"}}
    },
    "garbage": {"sent": {"headers": {"Authorization": "SDK-HMAC-SHA256 \u00e9\u00e9 =,,;"}}},
    "nothing after the algorithm": {"sent": {"headers": {"Authorization": "SDK-HMAC-SHA256"}}},
    "another scheme": {"sent": {"headers": {"Authorization": "Basic YTpi"}}},
}


@pytest.mark.parametrize("given", FORGED.values(), ids=FORGED)
def test_forged_signatures(team: Service, key: AccessKey, given: dict[str, Any]) -> None:
    refused(call(team, key, **dated(given)))
    listed = team.call("GET", "/v4/user/keys", headers={"X-Auth-Token": "token-of-alice"}).json()
    assert listed["total"] == 0


def refused(answer: Any) -> str:
    """Check that the gateway refused, and answer its words."""
    assert answer.status_code == 401, answer.text
    body = answer.json()
    assert set(body) == {"error_msg", "error_code", "request_id"}
    assert body["error_code"] == "APIGW.0301"
    assert body["request_id"] == answer.headers["X-Request-Id"]
    words: str = body["error_msg"]
    assert words.startswith("Incorrect IAM authentication information: ")
    return words


def test_wrong_secret_unknown_id_and_a_header_twice(team: Service, key: AccessKey) -> None:
    assert refused(call(team, replace(key, secret="wrong"))).endswith("verify aksk signature fail")
    assert refused(call(team, replace(key, id="NOSUCHKEY"))).endswith("ak NOSUCHKEY not exist")
    host = team.url.partition("//")[2]
    twice = [("X-Sdk-Date", date()), ("X-Sdk-Date", date()), ("Host", host), ("Authorization", "SDK-HMAC-SHA256 x")]
    refused(team.client.get("/v4/user/keys", headers=twice))
    refused(team.client.get("/v4/user/keys", headers=[twice[-1], twice[-1]]))


@pytest.mark.parametrize(
    "path", ["/v4/user/keys", "/v1/users/sshkey", "/v2/projects/repositories", "/v3/projects", "/v5/caller-identity"]
)
def test_every_api_takes_signatures(team: Service, key: AccessKey, path: str) -> None:
    assert call(team, key, path=path).status_code == 200
    refused(call(team, replace(key, secret="wrong"), path=path))


def test_the_secret_of_a_token_in_a_signed_header_is_not_echoed(team: Service, key: AccessKey) -> None:
    headers = {"X-Auth-Token": "token-of-alice"}
    answer = call(team, replace(key, secret="wrong"), headers=headers, signed=["x-auth-token", "x-sdk-date"])
    assert "token-of-alice" not in refused(answer)


def test_token_and_signature_must_be_of_one_user(team: Service, key: AccessKey) -> None:
    assert call(team, key, headers={"X-Auth-Token": "token-of-alice"}).status_code == 200
    assert "two different users" in refused(call(team, key, headers={"X-Auth-Token": "token-of-bob"}))
    refused(call(team, replace(key, secret="wrong"), headers={"X-Auth-Token": "token-of-alice"}))
    dead = call(team, key, headers={"X-Auth-Token": "a token that never was"})
    assert (dead.status_code, dead.json()["error_code"]) == (401, "DEV.00000003")
    # Beside a token, what is no signature means nothing.
    headers = {"X-Auth-Token": "token-of-alice", "Authorization": "Basic YTpi"}
    assert team.call("GET", "/v4/user/keys", headers=headers).status_code == 200


def test_a_temporary_key_needs_its_security_token(team: Service, key: AccessKey) -> None:
    temporary = make_temporary_key(team)
    signed = ["x-sdk-date", "x-security-token"]
    good = {"X-Security-Token": temporary.security_token}
    assert call(team, temporary, headers=good, signed=signed).status_code == 200
    refused(call(team, temporary))
    refused(call(team, temporary, headers={"X-Security-Token": "another"}, signed=signed))
    refused(call(team, temporary, headers={"X-Security-Token": make_temporary_key(team).security_token}, signed=signed))
    refused(call(team, key, headers=good, signed=signed))


def test_a_temporary_access_key_is_bound_to_its_policy_and_creates_no_keys(team: Service) -> None:
    policy = {"Version": "5.0", "Statement": [{"Effect": "Allow", "Action": ["codeartsrepo::get*"]}]}
    narrow = make_temporary_key(team, policy=policy)
    headers = {**JSON, "X-Security-Token": narrow.security_token}
    assert call(team, narrow, headers=headers).status_code == 200
    assert call(team, narrow, "POST", body=b"{}", headers=headers).status_code == 403
    wide = make_temporary_key(team)
    headers = {**JSON, "X-Security-Token": wide.security_token}
    body = b'{"credential": {}}'
    answer = call(team, wide, "POST", "/v3.0/OS-CREDENTIAL/credentials", body=body, headers=headers)
    assert answer.status_code == 403


def test_an_access_key_of_a_narrow_token_is_as_narrow(team: Service) -> None:
    team.apply(
        '[workspace]\nname = "acme"\n[[users]]\nname = "alice"\nrole = "member"\npolicies = ["codeartsrepo::*"]\n'
        'tokens = [{ name = "narrow", token = "narrow-token-of-alice", scopes = ["iam:self"] }]\n'
    )
    narrow = make_access_key(team, "narrow-token-of-alice")
    assert call(team, narrow, path="/v3/projects").status_code == 200
    assert call(team, narrow).status_code == 403
    # RunCloud's API takes the same access keys by HTTP Basic.
    basic = team.client.get("/api/v2/servers", auth=(narrow.id, narrow.secret))
    assert basic.status_code == 403


def test_a_key_whose_row_was_changed_is_refused(team: Service, key: AccessKey) -> None:
    other = make_access_key(team, "token-of-bob")
    source = "SELECT encrypted_secret FROM access_keys WHERE id = :b"
    copy = text(f"UPDATE access_keys SET encrypted_secret = ({source}) WHERE id = :a")
    team.instance.database.write(lambda connection: connection.execute(copy, {"a": key.id, "b": other.id}))
    assert "could not be fetched" in refused(call(team, replace(key, secret=other.secret)))


class Clock:
    """A clock that can be put forward."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return utc_now() + self.ahead


def test_five_wrong_guesses_bar_a_key_for_five_minutes(team: Service, key: AccessKey) -> None:
    clock = Clock()
    object.__setattr__(team.instance, "now", clock)
    other = make_access_key(team, "token-of-bob")
    for _ in range(4):
        refused(call(team, replace(key, secret="wrong")))
    assert call(team, key).status_code == 200
    for _ in range(5):
        assert refused(call(team, replace(key, secret="wrong"))).endswith("verify aksk signature fail")
    assert "locked" in refused(call(team, key))
    assert call(team, other).status_code == 200
    events = team.instance.database.read(
        lambda connection: (
            connection.execute(text("SELECT reason FROM events WHERE outcome = 'refused'")).scalars().all()
        )
    )
    assert events.count("signature-wrong") == 8
    assert events.count("access-key-locked-out") == 1
    clock.ahead = timedelta(minutes=5, seconds=1)
    assert call(team, key, at=date(clock.ahead)).status_code == 200
    assert refused(call(team, replace(key, secret="wrong"), at=date(clock.ahead))).endswith("signature fail")
    assert call(team, key, at=date(clock.ahead)).status_code == 200


def test_secrets_are_not_in_the_database(unused_data: Path) -> None:
    with running(settings_for(unused_data, "")) as service:
        service.apply(TEAM)
        permanent, temporary = make_access_key(service), make_temporary_key(service)
    content = b"".join(path.read_bytes() for path in (unused_data).glob("keyrack.db*"))
    assert permanent.id.encode() in content
    assert temporary.id.encode() in content
    for secret in (permanent.secret, temporary.secret, temporary.security_token):
        assert secret.encode() not in content


def test_a_request_signed_by_a_deleted_or_disabled_user_is_refused(team: Service, key: AccessKey) -> None:
    olga = {"X-Auth-Token": "token-of-olga"}
    users = team.call("GET", "/v3/users", headers=olga).json()["users"]
    alice = next(user["id"] for user in users if user["name"] == "alice")
    temporary = make_temporary_key(team)
    off = team.call("PATCH", f"/v3/users/{alice}", headers=olga, json={"user": {"enabled": False}})
    assert off.json()["user"]["enabled"] is False
    refused(call(team, key))
    team.call("PATCH", f"/v3/users/{alice}", headers=olga, json={"user": {"enabled": True}})
    # Let in again, with nothing that proved who one is before; who holds it switches it on.
    refused(call(team, key))
    refused(call(team, temporary))
    path = f"/v3.0/OS-CREDENTIAL/credentials/{key.id}"
    on = team.call("PUT", path, headers=olga, json={"credential": {"status": "active"}})
    assert on.json()["credential"]["status"] == "active"
    assert call(team, key).status_code == 200
    headers = {"X-Security-Token": temporary.security_token}
    refused(call(team, temporary, headers=headers))
    assert team.call("DELETE", f"/v3/users/{alice}", headers=olga).status_code == 204
    refused(call(team, key))


def test_a_signed_post_adds_a_key(team: Service, key: AccessKey) -> None:
    line = fresh_line("clé 山田")
    body = json.dumps({"title": "büro", "key": line}, ensure_ascii=False).encode()
    answer = call(team, key, "POST", body=body, headers=JSON, signed=["content-type", "host", "x-sdk-date"])
    assert (answer.status_code, answer.json()["key"]) == (201, line)
