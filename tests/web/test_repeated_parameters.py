"""A query that names a parameter twice: refused in each API's own shape, as nobody can see which value counts."""

from __future__ import annotations

from typing import Any

import pytest

from tests.services import Service

WORDS = "page stands twice in the query; send it once."
BEARER, IAM = {"Authorization": "Bearer token-of-olga"}, {"X-Auth-Token": "token-of-olga"}
CALLS: dict[str, tuple[str, dict[str, str], int, Any]] = {
    "runcloud": (
        "/api/v3/servers?page=1&page=2",
        BEARER,
        422,
        {"message": WORDS, "errors": {"page": [WORDS]}},
    ),
    "native": (
        "/api/keyrack/v1/servers?page=1&per_page=5&page=1",
        BEARER,
        422,
        {"error": {"code": "parameter-twice", "message": WORDS, "field": "page"}},
    ),
    "codearts": (
        "/v4/user/keys?limit=1&%6Cimit=2",
        IAM,
        400,
        {"error_code": "CH.010001", "error_msg": WORDS.replace("page", "limit")},
    ),
    "codearts v1": (
        "/v1/repositories/0123456789abcdef0123456789abcdef/members?page_index=1&page_index=2",
        IAM,
        400,
        {"error": {"code": "CH.010001", "message": WORDS.replace("page", "page_index")}, "status": "failed"},
    ),
    "iam": (
        "/v3/projects?name=a&name=b",
        IAM,
        400,
        {"error": {"code": 400, "message": WORDS.replace("page", "name"), "title": "Bad Request"}},
    ),
    "gitlab": (
        "/api/v4/user/keys?page=1&page=2",
        BEARER,
        400,
        {"message": {"page": [WORDS]}, "detail": WORDS},
    ),
}


@pytest.mark.parametrize("dialect", CALLS)
def test_a_repeated_parameter_is_refused_in_words(unchanged_team: Service, dialect: str) -> None:
    address, headers, status, body = CALLS[dialect]
    answer = unchanged_team.call("GET", address, headers=headers)
    assert (answer.status_code, answer.json()) == (status, body)


def test_github_names_the_field(unchanged_team: Service) -> None:
    answer = unchanged_team.call("GET", "/api/v3/user/keys?page=1&page=2", headers=BEARER)
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"resource": "PublicKey", "code": "custom", "field": "page", "message": WORDS}]


def test_a_caller_without_a_token_is_answered_401_first(unchanged_team: Service) -> None:
    assert unchanged_team.call("GET", "/api/v3/servers?page=1&page=2").status_code == 401


@pytest.mark.parametrize("path", ["/api/v3/servers", "/v4/user/keys", "/api/v4/user/keys", "/api/v3/user/keys"])
def test_unknown_parameters_are_ignored_though_repeated(unchanged_team: Service, path: str) -> None:
    headers = {**BEARER, **IAM} if path.startswith("/v4") else BEARER
    many = "&".join(["tags[]=a", "x=1"] * 500)
    assert unchanged_team.call("GET", f"{path}?{many}", headers=headers).status_code == 200


def test_a_sign_in_that_is_refused_makes_no_token(team: Service) -> None:
    user = {"name": "alice", "password": "alice's password", "domain": {"name": "acme"}}
    body = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}}}
    before = team.call("GET", "/api/keyrack/v1/events", headers=BEARER).json()["items"]
    answer = team.call("POST", "/v3/auth/tokens?nocatalog=1&nocatalog=2", json=body)
    assert (answer.status_code, "x-subject-token" in answer.headers) == (400, False)
    assert team.call("GET", "/api/keyrack/v1/events", headers=BEARER).json()["items"] == before
