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
        "/v4/user/keys?page=1&%70age=2",
        IAM,
        400,
        {"error_code": "CH.010001", "error_msg": WORDS},
    ),
    "codearts v1": (
        "/v1/users/sshkey?page=1&page=2",
        IAM,
        400,
        {"error": {"code": "CH.010001", "message": WORDS}, "status": "failed"},
    ),
    "iam": (
        "/v3/projects?page=1&page=2",
        IAM,
        400,
        {"error": {"code": 400, "message": WORDS, "title": "Bad Request"}},
    ),
    "gitlab": (
        "/api/v4/user/keys?page=1&page=2",
        BEARER,
        400,
        {"message": {"page": [WORDS]}, "detail": WORDS},
    ),
}


@pytest.mark.parametrize("dialect", CALLS)
def test_it_is_refused_with_words(unchanged_team: Service, dialect: str) -> None:
    address, headers, status, body = CALLS[dialect]
    answer = unchanged_team.call("GET", address, headers=headers)
    assert (answer.status_code, answer.json()) == (status, body)


def test_github_names_the_field(unchanged_team: Service) -> None:
    answer = unchanged_team.call("GET", "/api/v3/user/keys?page=1&page=2", headers=BEARER)
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"resource": "PublicKey", "code": "custom", "field": "page", "message": WORDS}]


def test_who_has_no_token_hears_that_first(unchanged_team: Service) -> None:
    assert unchanged_team.call("GET", "/api/v3/servers?page=1&page=2").status_code == 401


def test_a_list_in_brackets_may_have_several(unchanged_team: Service) -> None:
    answer = unchanged_team.call("GET", "/api/v3/servers?tags[]=a&tags[]=b", headers=BEARER)
    assert answer.status_code == 200


def test_a_name_that_cannot_be_shown_is_not_repeated(unchanged_team: Service) -> None:
    answer = unchanged_team.call("GET", "/api/v3/servers?%1b[2J=1&%1b[2J=2", headers=BEARER)
    assert answer.json()["message"] == "A parameter stands twice in the query; send it once."
