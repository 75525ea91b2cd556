"""Requests that no program of good will sends do nothing, are answered in time, and show nothing, in every API."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from sqlalchemy import func, select

from keyrack.store.tables import credentials, user_keys
from tests.console.conftest import COOKIE, session_of
from tests.hostile_http import Target, cases, send
from tests.services import Service

TARGETS = (
    Target("runcloud", "/api/v3/servers/1/ssh/credentials", "token-of-olga"),
    Target("native", "/api/keyrack/v1/people/me/keys", "token-of-olga"),
    Target("codearts", "/v4/user/keys", "token-of-olga", "X-Auth-Token", ""),
    Target("gitlab", "/api/v4/user/keys", "token-of-olga", "PRIVATE-TOKEN", ""),
    Target("github", "/api/github/user/keys", "token-of-olga"),
    # A browser's session takes the place of its token.
    Target("console", "/keys", "", "Cookie", f"{COOKIE}="),
)


def signed_in(team: Service, target: Target) -> Target:
    """The target with what proves who asks; in the console it is a session's secret."""
    return target if target.token else replace(target, token=session_of(team, "olga"))


def keys(team: Service) -> int:
    """How many there are."""
    counts = [select(func.count()).select_from(table) for table in (credentials, user_keys)]
    return sum(team.instance.database.read(lambda c, one=one: c.execute(one).scalar_one()) for one in counts)  # type: ignore[misc]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_hostile_requests_are_answered_and_change_nothing(team: Service, target: Target) -> None:
    target = signed_in(team, target)
    before = keys(team)
    with ThreadPoolExecutor(32) as pool:  # some are answered only when their time is over
        answers = list(pool.map(lambda case: (case, send(team.url, target, case)), cases()))
    bad = [
        (case["name"], answer.status, found)
        for case, answer in answers
        if (found := answer.problems(case, target.token))
    ]
    assert bad == []
    taken = [case["name"] for case, answer in answers if answer.status in (200, 201)]
    assert keys(team) - before <= len(taken), "a key was added beside a refusal"
    assert team.call("GET", "/healthz").status_code == 200


PLACES: dict[str, Callable[[Service, str], object]] = {
    "bearer": lambda team, secret: team.call("GET", "/api/v3/servers", token=secret),
    "x-auth-token": lambda team, secret: team.call("GET", "/v4/user/keys", headers={"X-Auth-Token": secret}),
    "private-token": lambda team, secret: team.call("GET", "/api/v4/user/keys", headers={"PRIVATE-TOKEN": secret}),
    "basic": lambda team, secret: team.client.get("/api/v2/servers", auth=("key", secret)),
    "cookie": lambda team, secret: team.call("GET", "/api/v3/servers", headers={"Cookie": f"session={secret}"}),
    "query": lambda team, secret: team.call("GET", f"/api/v3/servers?access_token={secret}", token="token-of-olga"),
    "query of gitlab": lambda team, secret: team.call("GET", f"/api/v4/user/keys?private_token={secret}"),
    "an unknown field": lambda team, secret: team.call(
        "POST", "/api/keyrack/v1/people/me/keys", token="token-of-olga", json={"secret": secret}
    ),
    "in place of a key": lambda team, secret: team.call(
        "POST", "/api/keyrack/v1/people/me/keys", token="token-of-olga", json={"title": "x", "public_key": secret}
    ),
    "an agent's": lambda team, secret: team.call("GET", "/agent/v1/document?revision=0", token=secret),
    "an enrolment token": lambda team, secret: team.call("POST", "/agent/v1/enroll", json={"token": secret}),
    "a password": lambda team, secret: team.call(
        "POST",
        "/v3/auth/tokens",
        json={
            "auth": {
                "identity": {
                    "methods": ["password"],
                    "password": {"user": {"name": "olga", "password": secret, "domain": {"name": "acme"}}},
                }
            }
        },
    ),
    "a subject token": lambda team, secret: team.call(
        "GET", "/v3/auth/tokens", headers={"X-Auth-Token": "token-of-olga", "X-Subject-Token": secret}
    ),
    "a signature": lambda team, secret: team.call(
        "GET",
        "/v4/user/keys",
        headers={"Authorization": f"SDK-HMAC-SHA256 Access=AAAA, SignedHeaders=host, Signature={secret}"},
    ),
    "a new password": lambda team, secret: team.call(
        "POST", "/api/keyrack/v1/people", token="token-of-olga", json={"name": "zoe", "password": secret}
    ),
    "a token of one's own choice": lambda team, secret: team.call(
        "POST", "/api/keyrack/v1/tokens", token="token-of-olga", json={"name": "ci", "scopes": ["*"], "token": secret}
    ),
    "a request's id": lambda team, secret: team.call("GET", "/api/v3/servers", headers={"Authorization": secret}),
}


def encodings(secret: str) -> list[bytes]:
    """A secret in each form in which it could have been kept."""
    raw = secret.encode()
    forms = [raw, raw[::-1], raw.hex().encode(), raw.hex().upper().encode(), quote(secret).encode()]
    for at in range(3):  # base64 of it, wherever it begins in what was encoded
        inner = base64.b64encode(bytes(at) + raw)
        forms.append(inner[4 if at else 0 : -4])
    return [*forms, secret.encode("utf-16-le"), secret.upper().encode()]


def test_a_secret_is_found_nowhere(team: Service, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In each place where a caller can put one: not in the database, the log, an event, a figure or an answer."""
    secrets_sent = {}
    answers = b""
    for place, put in PLACES.items():
        secret = secrets_sent[place] = "Zq" + secrets.token_hex(16)
        answer = put(team, secret)
        answers += getattr(answer, "content", b"")
    team.instance.refusals.write(team.instance.database, everything=True)
    events = team.call("GET", "/api/keyrack/v1/events?per_page=200", token="token-of-olga").content
    figures = team.instance.figures.text()
    files = {str(file): file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    said = capfd.readouterr()
    seen = {"answers": answers, "events": events, "figures": figures, "log": (said.out + said.err).encode(), **files}
    found = [
        (place, where)
        for place, secret in secrets_sent.items()
        for form in encodings(secret)
        for where, content in seen.items()
        if form in content
    ]
    assert found == []
    assert any("keyrack.db" in name for name in files)
