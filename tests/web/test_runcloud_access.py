"""Who stands behind a request to RunCloud's API: access keys by HTTP Basic on v2, tokens that ended, odd headers."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from keyrack.core.people import actors, users
from keyrack.model import Role
from keyrack.store import tables
from keyrack.store.people import users as user_rows
from keyrack.store.sealing import sealed
from tests.services import Service
from tests.web.runcloud_team import ACCESS_KEY, BASIC, serving

UNAUTHENTICATED = (401, {"message": "Unauthenticated."})
# v2's programs compare with these words.
INVALID = (401, {"message": "Invalid credentials."})


def basic(text: str) -> str:
    """An Authorization header for a pair."""
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.fixture
def served(team_folder: Path, tmp_path: Path) -> Iterator[Service]:
    """A service where olga has an access key."""
    with serving(team_folder, tmp_path / "data") as service:
        yield service


def ask(service: Service, authorization: str, version: str = "v2") -> tuple[int, Any]:
    """List the servers with this header."""
    answer = service.call("GET", f"/api/{version}/servers", headers={"Authorization": authorization})
    return answer.status_code, answer.json()


def test_an_access_key_is_good_on_v2(served: Service) -> None:
    status, body = ask(served, BASIC)
    assert (status, [server["name"] for server in body["data"]]) == (200, ["web-1"])
    assert ask(served, BASIC, "v3") == UNAUTHENTICATED
    logs = served.call("GET", "/api/v2/servers/1/logs?perPage=1", headers={"Authorization": BASIC}).json()["data"]
    assert len(logs) == 1


@pytest.mark.parametrize(
    "header",
    [
        basic(f"{ACCESS_KEY[0]}:wrong"),
        basic(f"wrong:{ACCESS_KEY[1]}"),
        basic(f"{ACCESS_KEY[0]}:"),
        basic(f":{ACCESS_KEY[1]}"),
        basic(ACCESS_KEY[0]),
        basic(f"{ACCESS_KEY[0]}:{ACCESS_KEY[1]} "),
        basic(f"{ACCESS_KEY[0]}:{'x' * 5000}"),
        "Basic",
        "Basic !!!",
        "Basic " + base64.b64encode(b"\xff\xfe:\xff").decode(),
        f"Bearer {ACCESS_KEY[1]}",
        basic("token-of-olga:"),
        "Negotiate x",
    ],
)
def test_any_other_authorization_header_is_refused(served: Service, header: str) -> None:
    assert ask(served, header) == INVALID


@pytest.mark.parametrize(
    "values",
    [
        {"active": False},
        {"security_token_hash": b"\1" * 32},
        {"encrypted_secret": b"\1" * 40},
        {"expires_at": "past"},
    ],
    ids=lambda values: next(iter(values)),
)
def test_an_access_key_that_is_not_in_force(served: Service, values: dict[str, Any]) -> None:
    if "expires_at" in values:
        values = {"expires_at": served.instance.now() - timedelta(seconds=1)}
    served.instance.database.write(lambda connection: sealed.change(connection, tables.access_keys, values=values))
    assert ask(served, BASIC) == INVALID


def test_an_access_key_of_a_disabled_user(served: Service) -> None:
    users.create_user(served.instance, actors.system_actor(1), name="second", role=Role.OWNER)
    olga = served.instance.database.read(lambda connection: user_rows.user_by_name(connection, 1, "olga"))
    assert olga is not None
    assert ask(served, BASIC)[0] == 200
    users.change(served.instance, actors.system_actor(1), olga.id, enabled=False)
    assert ask(served, BASIC) == INVALID
    assert ask(served, "Bearer token-of-olga") == INVALID


def test_a_token_ends_and_can_be_revoked(served: Service) -> None:
    assert ask(served, "Bearer token-of-olga", "v3")[0] == 200
    for column in ("expires_at", "revoked_at"):
        at = served.instance.now() - timedelta(seconds=1)
        served.instance.database.write(
            lambda connection, change={column: at}: sealed.change(connection, tables.tokens, values=change)  # type: ignore[misc]
        )
        for version, words in (("v2", INVALID), ("v3", UNAUTHENTICATED)):
            assert ask(served, "Bearer token-of-olga", version) == words
        served.instance.database.write(
            lambda connection, change={column: None}: sealed.change(connection, tables.tokens, values=change)  # type: ignore[misc]
        )


def test_two_authorization_headers_are_refused(served: Service) -> None:
    headers = [("Authorization", "Bearer token-of-olga"), ("Authorization", BASIC)]
    answer = served.client.get("/api/v2/servers", headers=headers)
    assert (answer.status_code, answer.json()) == INVALID
