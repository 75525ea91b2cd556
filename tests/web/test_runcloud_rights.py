"""Who may call what on RunCloud's API: every route for every role and scope, and nothing of another workspace."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import insert

from keyrack import policy
from keyrack.model import Actor, Role
from keyrack.store import tables
from keyrack.web.api import Endpoint
from keyrack.web.runcloud import api as runcloud
from tests.core.keys_for_tests import fresh_line
from tests.in_process import Directly, DirectService, asked_directly
from tests.services import STRANGERS, TEAM, Service, settings_for
from tests.web.runcloud_team import Agent

VERSIONS = ("/api/v3", "/api/v2", "/api/v3/agency")
FORBIDDEN = (403, {"message": "This action is unauthorized."})
MISSING = (404, {"message": "Resources not found."})

ROLES = {"owner": Role.OWNER, "admin": Role.ADMIN, "member": Role.MEMBER, "auditor": Role.AUDITOR}
# Besides these, each route is tried with its own action as the only scope, and with all others but it.
SCOPES = {"all": ("*",), "none": (), "read": ("*:read",), "git": ("codeartsrepo:*",)}
ACTIONS = sorted({call.action for call in runcloud.ENDPOINTS if call.action})
SCOPES |= {f"only {action}": (action,) for action in ACTIONS}
SCOPES |= {f"all but {action}": tuple(other for other in ACTIONS if other != action) for action in ACTIONS}

# A good body for each call that takes one. A call of the table that is not here is called without a body.
BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/servers"): {"name": "new", "ipAddress": "192.0.2.30"},
    ("PATCH", "/servers/{serverId}/settings/meta"): {"name": "renamed"},
    ("POST", "/servers/{serverId}/users"): {"username": "fresh"},
    ("PATCH", "/servers/{serverId}/users/{userId}/password"): {"password": "correct horse battery"},
    ("PATCH", "/servers/{serverId}/ssh/config"): {"useDns": True},
    ("PATCH", "/servers/{serverId}/settings/ssh"): {"useDns": True},
    ("POST", "/servers/{serverId}/ssh/credentials"): {"label": "fresh", "username": "deploy", "publicKey": "KEY"},
    ("POST", "/servers/{serverId}/sshcredentials"): {"label": "fresh", "username": "deploy", "publicKey": "KEY"},
}
OPEN_TO_ALL = {("GET", "/ping")}


def names(call: Endpoint) -> str:
    """What a test of one call is named."""
    return f"{call.method} {call.path}"


@dataclass(frozen=True)
class Belongings:
    """The ids of one workspace: what stands in a path for each of its names."""

    token: str
    ids: dict[str, int]


Two = tuple[Service, Belongings, Belongings]


def tokens() -> str:
    """A workspace file's part: one user a role, each with a token for every set of scopes."""
    lines = []
    for name, role in ROLES.items():
        lines += ["[[users]]", f'name = "{name}"', f'role = "{role.value}"', f'password = "a password of {name}"']
        lines.append("tokens = [")
        for title, scopes in SCOPES.items():
            listed = ", ".join(f'"{scope}"' for scope in scopes)
            lines.append(f'  {{ name = "{title}", token = "{token(name, title)}", scopes = [{listed}] }},')
        lines.append("]")
    return "\n".join(lines)


def token(role: str, scopes: str) -> str:
    """The token of a role with scopes."""
    return f"token-{role}-{scopes}".replace(" ", "-")


def test_every_call_names_its_action() -> None:
    for call in runcloud.ENDPOINTS:
        if (call.method, call.path) in OPEN_TO_ALL:
            assert not call.action, names(call)
        else:
            assert call.action in policy.ACTIONS, f"{names(call)} does not say which action it takes"
        assert not call.open, names(call)
    assert set(BODIES) <= {(call.method, call.path) for call in runcloud.ENDPOINTS}


@contextmanager
def serving(team_folder: Path, folder: Path) -> Iterator[DirectService]:
    """The team on a copy of its folder, asked directly; its limit of requests is out of reach."""
    shutil.copytree(team_folder, folder)
    with asked_directly(settings_for(folder, "", rate_limit=1_000_000)) as service:
        yield service


@pytest.fixture(scope="module")
def asked(team_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Directly]:
    """A service with all those tokens."""
    with serving(team_folder, tmp_path_factory.mktemp("rights") / "data") as service:
        service.apply(TEAM + tokens())
        yield service.direct


@pytest.mark.parametrize("call", runcloud.ENDPOINTS, ids=names)
def test_roles_and_scopes(asked: Directly, call: Endpoint) -> None:
    path, body = written(call, {})
    for role_name, role in ROLES.items():
        for title, scopes in SCOPES.items():
            actor = Actor(workspace_id=1, user_id=1, name="", role=role, scopes=scopes)
            allowed = not call.action or policy.may(actor, call.action) is None
            # The ids lead nowhere: who may call gets 404, and changes nothing.
            status, said = asked.call(call.method, f"/api/v3{path}", token(role_name, title), body)
            where = f"{names(call)} as {role_name} with {title}: {status} {said!r}"
            if not allowed:
                assert (status, json.loads(said)) == FORBIDDEN, where
            elif "{" in call.path:
                assert (status, json.loads(said)) == MISSING, where
            else:
                assert status == 200, where


@pytest.fixture(scope="module")
def two(team_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    """Two workspaces with one of everything each."""
    with serving(team_folder, tmp_path_factory.mktemp("two") / "data") as service:
        assert "lab-1" in STRANGERS
        yield service, furnish(service, "token-of-olga", 1), furnish(service, "token-of-victor", 2)


def furnish(service: Service, login: str, server_id: int) -> Belongings:
    """A key, a session and an enrolled agent on a server, and the ids of them."""
    base = f"/api/v3/servers/{server_id}"
    body = {"label": "laptop", "username": "deploy", "publicKey": fresh_line()}
    key = service.call("POST", f"{base}/ssh/credentials", token=login, json=body).json()
    user = service.call("GET", f"{base}/users?search=deploy", token=login).json()["data"][0]
    Agent(service, server_id, login).obey()
    session = {
        "server_id": server_id,
        "host_session": "s1",
        "username": "deploy",
        "address": "198.51.100.9",
        "fingerprint": key["fingerprint"],
        "started_at": service.instance.now(),
        "ending": False,
    }
    service.instance.database.write(lambda connection: connection.execute(insert(tables.sessions).values(session)))
    listed = service.call("GET", f"{base}/ssh/sessions", token=login).json()["data"]
    ids = {"serverId": server_id, "sshId": key["id"], "userId": user["id"], "sessionId": listed[0]["id"]}
    return Belongings(login, ids)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("call", [call for call in runcloud.ENDPOINTS if "{" in call.path], ids=names)
def test_nothing_of_another_workspace_is_shown_or_changed(two: Two, call: Endpoint, version: str) -> None:
    service, ours, theirs = two
    for mine, foreign in ((ours, theirs), (theirs, ours)):
        wanted = re.findall(r"\{(\w+)\}", call.path)
        missing = send(service, call, version, dict.fromkeys(wanted, 999_999), mine.token)
        assert (missing.status_code, missing.json()) == MISSING
        mixtures: list[dict[str, int]] = [foreign.ids]
        if len(wanted) > 1:
            # Their thing under our server, and our thing under theirs.
            mixtures += [{**foreign.ids, "serverId": mine.ids["serverId"]}]
            mixtures += [{**mine.ids, "serverId": foreign.ids["serverId"]}]
        for ids in mixtures:
            answer = send(service, call, version, ids, mine.token)
            assert (answer.status_code, answer.content) == (404, missing.content), ids


def test_everything_is_still_there_and_lists_show_ones_own_alone(
    two: Two,
) -> None:
    service, ours, theirs = two
    for mine in (ours, theirs):
        server_id, key_id = mine.ids["serverId"], mine.ids["sshId"]
        listed = service.call("GET", "/api/v3/servers?perPage=40", token=mine.token).json()["data"]
        assert [server["id"] for server in listed] == [server_id]
        for what, name in (("ssh/credentials", "sshId"), ("ssh/sessions", "sessionId")):
            found = service.call("GET", f"/api/v3/servers/{server_id}/{what}", token=mine.token).json()["data"]
            assert [item["id"] for item in found] == [mine.ids[name]]
        users = service.call("GET", f"/api/v3/servers/{server_id}/users", token=mine.token).json()["data"]
        assert [user["username"] for user in users] == ["runcloud", "root", "deploy"]
        assert service.call("GET", f"/api/v3/servers/{server_id}/ssh/credentials/{key_id}", token=mine.token).json()
        config = service.call("GET", f"/api/v3/servers/{server_id}/ssh/config", token=mine.token).json()
        assert config["state"] == "unmanaged"
        # Attempts from elsewhere leave nothing in the log of the server they were aimed at.
        logs = service.call("GET", f"/api/v3/servers/{server_id}/logs?perPage=40", token=mine.token).json()["data"]
        other = "victor" if mine is ours else "olga"
        assert other not in {entry["actor"] for entry in logs}


def written(call: Endpoint, ids: dict[str, int]) -> tuple[str, dict[str, Any] | None]:
    """The path of one call of the table, and a good body for it; names that `ids` leaves out lead nowhere."""
    path = re.sub(r"\{(\w+)\}", lambda match: str(ids.get(match[1], 999_999)), call.path)
    body = BODIES.get((call.method, call.path))
    if body is not None and "publicKey" in body:
        body = {**body, "publicKey": KEY}
    return path, body


def send(service: Service, call: Endpoint, version: str, ids: dict[str, int], login: str) -> httpx2.Response:
    """That call, asked."""
    path, body = written(call, ids)
    return service.call(call.method, version + path, token=login, json=body)


KEY = fresh_line()
