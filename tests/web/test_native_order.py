"""Each call of Keyrack's own API, wrong in every way at once: who may not call it, or names what is not there, hears
the same as with a right call, and nothing of what else is wrong.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keyrack.web.native import api as native
from tests.core.keys_for_tests import fresh_line
from tests.in_process import Directly, DirectService, asked_directly
from tests.services import TEAM, settings_for

BASE = "/api/keyrack/v1"
OLGA = "token-of-olga"
MORE = """
[workspace]
name = "acme"
[[users]]
name = "nina"
role = "owner"
tokens = [
    { name = "nothing", token = "token-of-nothing", scopes = ["git:fetch"] },
    { name = "people", token = "token-of-people", scopes = ["people:*"] },
    { name = "self", token = "token-of-self", scopes = ["iam:self"] },
    { name = "credentials", token = "token-of-credentials", scopes = ["credentials:write", "grants:write"] },
]
[[users]]
name = "petra"
role = "member"
policies = ["people:write", "requests:approve", "servers:write"]
tokens = [{ name = "laptop", token = "token-of-petra", scopes = ["*"] }]
"""
CALLERS = ("nothing", "self", "mallory", "audrey", "petra", "people", "credentials", "alice", "bob", "victor", "olga")
QUERY = "zz=1"
BODIES: tuple[Any, ...] = ({"zz": 1}, [], {"label": 7, "name": 7, "duration": 7, "reason": 7, "fingerprint": 7})


@pytest.fixture(scope="module")
def team(team_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DirectService]:
    """The team that is asked, directly, as it is asked some twenty thousand times."""
    folder = tmp_path_factory.mktemp("order") / "data"
    shutil.copytree(team_folder, folder)
    with asked_directly(settings_for(folder, "")) as service:
        yield service


@pytest.fixture(scope="module")
def asked(team: DirectService) -> Directly:
    """That service, with one of everything."""
    team.apply(TEAM + MORE.split("\n", 3)[3])

    def make(method: str, path: str, body: dict[str, Any], token: str = OLGA) -> None:
        team.call(method, BASE + path, token=token, json=body).raise_for_status()

    make("PUT", "/people/alice/keys", {"title": "t", "public_key": fresh_line()})
    make("POST", "/servers/1/credentials", {"label": "l", "username": "deploy", "public_key": fresh_line()})
    make("POST", "/grants", {"user": "alice", "server": "web-1", "system_user": "deploy"})
    make("PUT", "/groups/ops", {"members": ["alice"]})
    make("PUT", "/repositories", {"path": "acme/site", "members": {"alice": "admin", "bob": "viewer"}})
    make("PUT", "/people/alice/key-sources/github", {"account": "octocat"})
    make("PUT", "/request-rules/rule", {})
    make("POST", "/requests", {"server": "web-1", "system_user": "deploy", "duration": "1h", "reason": "r"})
    make("POST", "/freezes", {"user": "alice"})
    make("POST", "/webhooks", {"url": "https://alerts.example.org/"})
    return team.direct


THERE = {
    "server": "web-1",
    "tag": "web",
    "username": "deploy",
    "row": "grant:1",
    "person": "alice",
    "rule": "rule",
    "kind": "github",
    "group": "ops",
}
NUMBERS = {"session", "event", "credential", "key", "grant", "freeze", "token", "offboarding", "webhook"}
NOWHERE = dict.fromkeys(NUMBERS | {"repository", "request"}, "999") | {"kind": "gitlab", "row": "grant:999"}
LOW = ("nothing", "self", "mallory", "audrey", "victor", "bob")
"""Callers whose right calls change little: what they may is their own."""


def paths(endpoint: Any) -> Iterator[tuple[str, bool]]:
    """The path with what is there, and with what is not, from each of its names on; whether all is there."""
    names = [part[1:-1] for part in endpoint.path.split("/") if part.startswith("{")]
    for at in range(len(names), -1, -1):
        shown = endpoint.path
        for number, name in enumerate(names):
            known = THERE.get(name, "1") if number < at else NOWHERE.get(name, f"no-{endpoint.handler.__name__}")
            shown = shown.replace("{" + name + "}", known)
        yield shown, at == len(names)


RIGHT: dict[str, Any] = {
    "put_server": {"name": "web-9", "address": "192.0.2.9"},
    "change_server": {"mode": "observe"},
    "set_offline_policy_of_server": {"after_seconds": 60, "then": "keep"},
    "set_offline_policy_of_tag": {"after_seconds": 60, "then": "keep"},
    "add_credential": {"label": "n", "username": "deploy", "public_key": fresh_line()},
    "ask": {"server": "web-1", "system_user": "deploy", "duration": "1h", "reason": "a look"},
    "put_key_source": {"account": "octocat"},
    "put_key_of_person": {"public_key": fresh_line()},
    "freeze_keys": {"user": "alice"},
    "put_repository": {"path": "acme/new"},
    "change_repository": {"path": "acme/other"},
    "create_webhook": {"url": "https://alerts.example.org/2"},
    "put_webhook": {"url": "https://alerts.example.org/2"},
    "renew_credential": {"duration": "1h"},
    "restrict_credential": {"restrictions": {}},
    "renew_key": {"duration": "1h"},
    "renew_grant": {"duration": "1h"},
    "rotate_token": {"overlap": "1h"},
    "change_grant": {"reason": "r"},
}


def answer_to(asked: Directly, method: str, path: str, caller: str, body: Any = None) -> tuple[int, str]:
    status, said = asked.call(method, BASE + path, f"token-of-{caller}", body)
    return status, json.loads(said).get("error", {}).get("code", "") if said else ""


@pytest.mark.parametrize("endpoint", native.ENDPOINTS, ids=lambda one: f"{one.method} {one.path}")
def test_only_callers_with_the_right_are_told_what_is_wrong_with_a_call(asked: Directly, endpoint: Any) -> None:
    method, unlike = endpoint.method, []
    right = RIGHT.get(endpoint.handler.__name__, {} if endpoint.takes is not None else None)
    for path, there in paths(endpoint):
        for caller in CALLERS:
            answers = {answer_to(asked, method, f"{path}?{QUERY}", caller, right)}
            for body in BODIES if method != "GET" else ():
                answers.add(answer_to(asked, method, path, caller, body))
                answers.add(answer_to(asked, method, f"{path}?{QUERY}", caller, body))
            expected = {422}
            if not there or caller in LOW:
                done = answer_to(asked, method, path, caller, right)
                expected = {done[0]} if done[0] in (403, 404) else expected
                if expected == {404} and {status for status, _ in answers} == {403}:
                    continue  # the right comes first, which the call itself finds out last
                if done[1] == "exceeds-own-rights":
                    continue
            elif {status for status, _ in answers} in ({403}, {404}):
                continue  # these calls were not made as they must be, as they might change what others look at
            if caller == "nothing":
                expected = {403}
            if {status for status, _ in answers} != expected or (expected != {422} and len(answers) > 1):
                unlike.append(f"{path} {caller}: {answers}, and not {expected}")
    assert not unlike, "\n".join(unlike)


def test_a_caller_with_a_role_in_the_repository_is_told_what_is_wrong(asked: Directly) -> None:
    for method in ("PATCH", "DELETE"):
        assert (
            answer_to(asked, method, f"/repositories/1?{QUERY}", "alice", {} if method == "PATCH" else None)[0] == 422
        )
        assert (
            answer_to(asked, method, f"/repositories/1?{QUERY}", "mallory", {} if method == "PATCH" else None)[0] == 403
        )


def test_a_caller_who_may_renew_for_others_is_told_what_is_wrong(asked: Directly) -> None:
    assert answer_to(asked, "POST", "/keys/1/renew", "olga", {"duration": "2m"})[0] == 422
    assert answer_to(asked, "POST", "/keys/999/renew", "olga", {"duration": "2m"}) == (404, "SSH-key-missing")
    assert answer_to(asked, "POST", "/credentials/999/renew", "olga", {"duration": "2m"}) == (404, "SSH-key-missing")
    assert answer_to(asked, "PUT", "/credentials/999/restrictions", "olga", {"restrictions": {"from": []}})[0] == 404
