"""Every kind of row that a caller can make has a bound, and the refusal is in the API's own words."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Column

from keyrack.core.people import actors, groups, users
from keyrack.errors import Kind, Refusal
from keyrack.store import room
from tests.core.keys_for_tests import fresh_line
from tests.services import Service

PROJECT = "aa2d97d7e62c4b7da3ffdfc11551f878"
OWN = "/api/keyrack/v1"
SERVER = "/api/v3/servers/1"


def wish(kind: str, number: int) -> tuple[str, str, Any]:
    """The request for one more of a kind."""
    key = {"label": f"k{number}", "username": "deploy", "public_key": fresh_line()}
    wishes: dict[str, tuple[str, str, Any]] = {
        "server": ("POST", "/api/v3/servers", {"name": f"s{number}", "ipAddress": "192.0.2.9"}),
        "user": ("POST", "/v3/users", {"user": {"name": f"u{number}"}}),
        "repository": ("POST", "/v1/repositories", {"name": f"r{number}", "project_uuid": PROJECT}),
        "grant": ("POST", f"{OWN}/grants", {"user": "alice", "server": "web-1", "system_user": "deploy"}),
        "system user": ("POST", f"{SERVER}/users", {"username": f"u{number}"}),
        "SSH key": ("POST", f"{OWN}/servers/1/credentials", key),
        "enrolment": ("POST", f"{OWN}/servers/1/enrolments", {}),
    }
    return wishes[kind]


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("server", 422),
        ("user", 400),
        ("repository", 400),
        ("grant", 409),
        ("system user", 422),
        ("SSH key", 409),
        ("enrolment", 409),
    ],
)
def test_the_number_of_things_in_a_workspace_is_limited(
    team: Service, monkeypatch: pytest.MonkeyPatch, kind: str, status: int
) -> None:
    column, _ = room.LIMITS[kind]
    monkeypatch.setitem(room.LIMITS, kind, (column, 8))
    answers = []
    for number in range(12):
        method, path, body = wish(kind, number)
        token = (
            {"X-Auth-Token": "token-of-olga"} if path.startswith("/v") else {"Authorization": "Bearer token-of-olga"}
        )
        answers.append(team.call(method, path, json=body, headers=token))
    statuses = [answer.status_code for answer in answers]
    assert statuses[0] in (200, 201)
    assert statuses[-1] == status
    assert "the most" in answers[-1].text
    assert _count(team, column) == 8


def _count(team: Service, column: Column[int]) -> int:
    counted = column.table.select().where(column == 1)
    return len(team.instance.database.read(lambda connection: connection.execute(counted).all()))


def test_groups_and_projects_are_bounded_too(team: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("group", "project"):
        monkeypatch.setitem(room.LIMITS, kind, (room.LIMITS[kind][0], 1))
    keyrack = actors.system_actor(1)
    groups.ensure(team.instance, keyrack, name="ops", user_ids=())
    with pytest.raises(Refusal) as refused:
        groups.ensure(team.instance, keyrack, name="more", user_ids=())
    assert refused.value.kind is Kind.LIMIT
    with pytest.raises(Refusal) as refused:
        users.ensure_project(team.instance, keyrack, name="more", uid=None)
    assert refused.value.kind is Kind.LIMIT
