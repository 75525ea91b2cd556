"""Whoever is no member any more, with all that proved them: each route of each API and of the console refuses."""

from __future__ import annotations

import re
import shutil
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

import httpx2
import pytest

from keyrack import app
from keyrack.core.instance import Instance
from keyrack.core.people import actors, offboarding, users
from keyrack.core.workspace import apply as workspace_apply
from keyrack.web.console.api import PAGES
from keyrack.web.server import APIS
from tests.console.conftest import COOKIE, session_of
from tests.in_process import Directly, DirectService, asked_directly
from tests.services import TEAM, settings_for
from tests.web import hand_signed
from tests.web.sdk.clients import AccessKey, make_access_key

TOKEN = "token-of-leo"
LEO = f"""
[[users]]
name = "leo"
role = "owner"
password = "leo's password"
tokens = [{{ name = "laptop", token = "{TOKEN}", scopes = ["*"] }}]
"""
ELSEWHERE = """
[workspace]
name = "umbrella"
[[users]]
name = "leo"
role = "owner"
password = "leo's password there"
tokens = [{ name = "laptop", token = "another-token-of-leo", scopes = ["*"] }]
"""
ROUTES = [(prefix, one) for prefix, dialect in APIS for one in dialect.endpoints if not one.open]


def _disabled(instance: Instance, number: int) -> None:
    users.change(instance, actors.system_actor(1), number, enabled=False)


def _removed(instance: Instance, number: int) -> None:
    users.delete_user(instance, actors.system_actor(1), number)


def _offboarded(instance: Instance, number: int) -> None:
    offboarding.offboard(instance, actors.system_actor(1), "leo")


def _moved(instance: Instance, number: int) -> None:
    users.delete_user(instance, actors.system_actor(1), number)
    workspace_apply.apply(instance, ELSEWHERE, {})


LOSSES: dict[str, Callable[[Instance, int], None]] = {
    "disabled": _disabled,
    "removed": _removed,
    "offboarded": _offboarded,
    "moved to another workspace": _moved,
}


@dataclass
class Former:
    """What somebody has kept. token: of the API; scoped: a token of IAM's; key: an access key; cookie: a browser's."""

    service: DirectService
    caller: Directly
    scoped: str
    key: AccessKey
    cookie: str

    @property
    def proofs(self) -> dict[str, dict[str, str]]:
        """All headers that show who they are, by a name."""
        basic = b64encode(f"{self.key.id}:{self.key.secret}".encode()).decode()
        return {
            "a token": {"Authorization": f"Bearer {TOKEN}"},
            "GitLab's token": {"PRIVATE-TOKEN": TOKEN},
            "GitHub's token": {"Authorization": f"token {TOKEN}"},
            "IAM's token": {"X-Auth-Token": self.scoped},
            "an access key": {"Authorization": f"Basic {basic}"},
        }

    def ask(self, method: str, path: str, headers: dict[str, str]) -> httpx2.Response:
        """One call with a proof."""
        return self.service.call(method, path, headers=headers, json=_body(method))


def _body(method: str) -> dict[str, str] | None:
    return {} if method in ("POST", "PUT", "PATCH") else None


OPENED = {
    "a token": ("/api/v3/servers", "/api/keyrack/v1/people/me/keys", "/api/v4/user/keys"),
    "GitLab's token": ("/api/v4/user/keys",),
    "GitHub's token": ("/api/github/user/keys", "/api/v3/user/keys"),
    "IAM's token": ("/v4/user/keys", "/v3/auth/projects"),
    "an access key": ("/api/v2/servers",),
}


@pytest.fixture
def service(team_data: tuple[Path, str], tmp_path: Path) -> Iterator[DirectService]:
    """The team with one more owner; nobody who asks much is held up."""
    source, database = team_data
    folder = tmp_path / "data"
    shutil.copytree(source, folder)
    with asked_directly(settings_for(folder, database, rate_limit=100_000, token_guesses=100_000)) as service:
        service.apply(TEAM + LEO)
        yield service


@pytest.fixture
def former(service: DirectService) -> Former:
    """Leo, with everything that can prove him, while it still does."""
    sent = {
        "auth": {
            "identity": {
                "methods": ["password"],
                "password": {"user": {"name": "leo", "password": "leo's password", "domain": {"name": "acme"}}},
            },
            "scope": {"domain": {"name": "acme"}},
        }
    }
    issued = service.call("POST", "/v3/auth/tokens", json=sent)
    assert issued.status_code == 201, issued.text
    key = make_access_key(service, TOKEN)
    leo = Former(service, service.direct, issued.headers["X-Subject-Token"], key, session_of(service, "leo"))
    for proof, paths in OPENED.items():
        for path in paths:
            assert leo.ask("GET", path, leo.proofs[proof]).status_code == 200, (proof, path)
    assert hand_signed.call(service, key).status_code == 200
    assert _console(leo, "GET", "/hosts")[0] == 200
    return leo


def _console(leo: Former, method: str, path: str) -> tuple[int, Message]:
    return leo.caller.ask(method, path, {"Accept": "text/html", "Cookie": f"{COOKIE}={leo.cookie}"})


@pytest.mark.parametrize("loss", LOSSES)
def test_every_route_refuses_a_former_member(service: DirectService, former: Former, loss: str) -> None:
    """Another process takes them out, as an operator's command does; what the service remembers counts no more."""
    number = next(one.id for one in users.find(service.instance, actors.system_actor(1)) if one.name == "leo")
    beside = app.open_instance(service.instance.settings)
    try:
        LOSSES[loss](beside, number)
    finally:
        beside.database.close()
    events = service.call("GET", "/api/keyrack/v1/events?per_page=200", token="token-of-olga").json()["items"]
    last = max(one["id"] for one in events)
    wrong = []
    proofs = {name: former.proofs[name] for name in ("a token", "GitLab's token", "GitHub's token", "IAM's token")}
    for prefix, route in ROUTES:
        path = prefix + re.sub(r"\{[^}]*\}", "1", route.path)
        for name, headers in proofs.items():
            status, _ = former.caller.ask(route.method, path, headers, _body(route.method))
            if status != 401:
                wrong.append((route.method, path, name, status))
    assert wrong == []
    assert former.ask("GET", "/api/v2/servers", former.proofs["an access key"]).status_code == 401
    assert hand_signed.call(service, former.key).status_code in (401, 403)
    for page in PAGES:
        if page.open:
            continue
        path = re.sub(r"\{[^}]*\}", "1", page.path)
        status, answer = _console(former, page.method, path)
        assert status in (401, 403) or "/login" in answer.get("location", ""), (page.method, path, status)
    events = service.call("GET", "/api/keyrack/v1/events?per_page=200", token="token-of-olga").json()["items"]
    assert {one["outcome"] for one in events if one["id"] > last} <= {"refused"}
