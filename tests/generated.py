"""Calls of every API made by schemathesis from the description, to a real service with lifelike data, and what may not
be answered; must know no more of a call than the description says of it.

A call that takes things away has a workspace whose things are new, so that none is refused as another took them.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import CheckFunction, not_a_server_error
from schemathesis.core import NOT_SET
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from keyrack.core.hosts import documents, enrolment, reports, servers
from keyrack.core.people import tokens
from keyrack.ssh.public_key import fingerprint_of
from keyrack.web import openapi
from keyrack.web.server import APIS
from tests.core.keys_for_tests import fresh_line
from tests.core.test_unmanaged_keys import entry
from tests.services import Service

NATIVE = "/api/keyrack/v1"
SECONDS = 30.0
NAMES = {"group", "kind", "login", "name", "person", "rule", "server", "tag", "username"}
"""What stands in a path and another workspace may have as well."""
NOBODY, MEMBER, OWNER, STRANGER = "nobody", "member", "owner", "stranger"
CHECKS: list[CheckFunction] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
NOWHERE_NETWORK = "127.0.0.0/8"
NOWHERE = "https://127.0.0.1:9/"
"""Where nobody answers: nothing may go out to the addresses that stand as examples."""
ANY_PAGE = {one.name for _, one in APIS if one.described is not None and not one.described.refuses_pages}
MEMBERS_MAY = {
    f"{method} {path}"
    for method, path in (
        ("POST", "/api/github/user/keys"),
        ("DELETE", "/api/github/user/keys/{key_id}"),
        ("POST", "/api/v3/user/keys"),
        ("DELETE", "/api/v3/user/keys/{key_id}"),
        ("POST", "/api/v4/user/keys"),
        ("DELETE", "/api/v4/user/keys/{key_id}"),
        ("POST", "/api/v4/users/{user}/keys"),
        ("DELETE", "/api/v4/users/{user}/keys/{key_id}"),
        ("POST", "/v4/user/keys"),
        ("DELETE", "/v4/user/keys/{key_id}"),
        ("POST", "/v1/users/sshkey"),
        ("DELETE", "/v1/users/sshkey/{id}"),
        ("POST", "/v3/auth/tokens"),
        ("DELETE", "/v3/auth/tokens"),
        ("POST", "/v3.0/OS-CREDENTIAL/credentials"),
        ("PUT", "/v3.0/OS-CREDENTIAL/credentials/{access_key}"),
        ("DELETE", "/v3.0/OS-CREDENTIAL/credentials/{access_key}"),
        ("POST", "/v3.0/OS-CREDENTIAL/securitytokens"),
        ("POST", "/v3/users/{user_id}/password"),
        ("POST", f"{NATIVE}/keys/challenge"),
        ("POST", f"{NATIVE}/keys/claim"),
        ("POST", f"{NATIVE}/people/me/keys"),
        ("PUT", f"{NATIVE}/people/me/keys"),
        ("DELETE", f"{NATIVE}/people/me/keys/{{key}}"),
        ("PUT", f"{NATIVE}/people/{{person}}/keys"),
        ("DELETE", f"{NATIVE}/people/{{person}}/keys/{{key}}"),
        ("POST", f"{NATIVE}/keys/{{key}}/confirm"),
        ("POST", f"{NATIVE}/keys/{{key}}/renew"),
        ("PUT", f"{NATIVE}/people/{{person}}/key-sources/{{kind}}"),
        ("DELETE", f"{NATIVE}/people/{{person}}/key-sources/{{kind}}"),
        ("POST", f"{NATIVE}/people/{{person}}/key-sources/sync"),
        ("POST", f"{NATIVE}/requests"),
        ("POST", f"{NATIVE}/requests/{{request}}/cancel"),
        ("POST", f"{NATIVE}/tokens"),
        ("PUT", f"{NATIVE}/tokens"),
        ("POST", f"{NATIVE}/tokens/{{token}}/rotate"),
        ("DELETE", f"{NATIVE}/tokens/{{token}}"),
    )
}
"""What a member may do beside looking: all of it is about oneself."""
OF_ONE_HOST = {
    f"POST {NATIVE}/servers/{{server}}/resync",
    f"POST {NATIVE}/keys/claim",
    f"PUT {NATIVE}/people/{{person}}/key-sources/{{kind}}",
}
"""Their examples cannot be sent as they are: they name what one host held back, what one signed, where one is known."""
TEXT = """
[workspace]
name = "works-{number}"
[[projects]]
name = "cn-north-4"
id = "{number:032x}"
[[users]]
name = "olga"
role = "owner"
tokens = [{{ name = "root", token = "token-of-olga-{number}", scopes = ["*"] }}]
[[users]]
name = "alice"
role = "member"
policies = ["codeartsrepo::*"]
tokens = [{{ name = "laptop", token = "token-of-alice-{number}", scopes = ["*"] }}]
[[users]]
name = "bob"
role = "admin"
[[servers]]
name = "web-1"
address = "192.0.2.10"
system_users = ["deploy", "backup"]
tags = ["web"]
[[servers]]
name = "db-1"
address = "192.0.2.11"
system_users = ["deploy"]
"""
STRANGERS = """
[workspace]
name = "umbrella"
[[users]]
name = "victor"
role = "owner"
tokens = [{ name = "root", token = "token-of-victor", scopes = ["*"] }]
[[servers]]
name = "lab-1"
address = "198.51.100.7"
system_users = ["deploy"]
"""


@dataclass
class World:
    """A workspace with one of each. of_path: what stands in a path by its name, `server` or `key /v4/user/keys`;
    of_body: texts that a field of this name may have.
    """

    number: int
    of_path: dict[str, str] = field(default_factory=dict)
    of_body: dict[str, list[Any]] = field(default_factory=dict)

    def headers(self, who: str, scheme: Mapping[str, str]) -> dict[str, str]:
        """How this caller proves who they are. scheme: as the description says it of an API."""
        if who == NOBODY:
            return {}
        names = {OWNER: f"olga-{self.number}", MEMBER: f"alice-{self.number}", STRANGER: "victor"}
        token = f"token-of-{names[who]}"
        return {"Authorization": f"Bearer {token}"} if scheme["type"] == "http" else {scheme["name"]: token}


def make_world(service: Service, number: int) -> World:
    """One more workspace, with one of each thing that there can be."""
    service.apply(TEXT.format(number=number))
    world = World(number)

    def made(method: str, path: str, body: Any = None, who: str = OWNER) -> Any:
        huawei = path.startswith("/v")
        headers = world.headers(who, {"type": "apiKey", "name": "X-Auth-Token"} if huawei else {"type": "http"})
        base = "" if huawei or path.startswith("/api") else NATIVE
        answer = service.call(method, base + path, headers=headers, json=body)
        assert answer.status_code < 300, (path, answer.text)
        return answer.json() if answer.content else None

    lines = [fresh_line() for _ in range(4)]
    web = made("GET", "/servers/web-1")["id"]
    _enrol(service, f"token-of-olga-{number}", web)
    made("PUT", "/request-rules/two", {"approvers": 2, "tag": "web"})
    made("PUT", "/groups/ops", {"members": ["alice"]})
    made("PUT", "/people/me/keys", {"title": "lost", "public_key": lines[0]})
    made("POST", "/keys/revoke", {"fingerprint": fingerprint_of(lines[0])})
    world.of_path = {name: str(value) for name, value in _ids(made, number, web, lines).items()}
    made("POST", "/people/bob/offboard", {"reason": "left"})
    world.of_path["offboarding"] = str(made("GET", "/offboardings")["items"][0]["id"])
    world.of_body = {
        "user": ["alice"], "group": ["ops"], "server": ["web-1", web], "tag": ["web"], "members": [["alice"]],
        "servers": ["all", ["web-1"], {"tag": "web"}], "system_user": ["deploy"], "username": ["deploy", "backup"],
        "public_key": lines[3:], "publicKey": lines[3:], "key": lines[3:], "fingerprint": [fingerprint_of(lines[1])],
        "expires_at": ["12h", "2030-01-01T00:00:00Z"], "duration": ["1h"], "approvers": [1], "policies": [[]],
        "scopes": [["iam:self"], ["*"]], "sources": [["192.0.2.0/24"]],
        "password": ["a long new password"], "url": [NOWHERE], "title": ["desk"], "label": ["shelf"],
        "project_uuid": [f"{number:032x}"], "restrictions": [{"restrict": True}],
        "email": ["a@example.org"], "name": ["another"], "address": ["192.0.2.12"], "key_title": ["build"],
    }  # fmt: skip
    return world


def _ids(made: Callable[..., Any], number: int, web: int, lines: list[str]) -> dict[str, Any]:
    """What stands in a path by its name; made: asks; web: the server's id; lines: the keys."""
    credential = {"label": "desk", "username": "deploy", "public_key": lines[1]}
    grant = {"user": "alice", "server": "web-1", "system_user": "deploy"}
    asked = {"server": "web-1", "system_user": "backup", "duration": "1h", "reason": "a release"}
    project, deploy = f"{number:032x}", {"key_title": "build", "key": fresh_line(), "application": "ci"}
    repository = made("PUT", "/repositories", {"path": f"acme/site-{number}"})["id"]
    other = made("POST", "/v1/repositories", {"name": f"shop-{number}", "project_uuid": project})["result"]
    alice = {one["name"]: one["id"] for one in made("GET", "/v3/users")["users"]}["alice"]
    key = made("POST", "/people/me/keys", {"title": "laptop", "public_key": lines[2]})["id"]
    placed = made("POST", "/servers/web-1/credentials", credential)["id"]
    session = made("GET", "/servers/web-1/sessions")["items"][0]["id"]
    deployed = made("POST", f"/v2/repositories/{repository}/deploy-keys", {**deploy, "can_push": False})["result"]
    access = made("POST", "/v3.0/OS-CREDENTIAL/credentials", {"credential": {}})["credential"]["access"]
    return {
        "server": "web-1", "serverId": web, "tag": "web", "name": "alice", "person": "alice", "login": "alice",
        "user": made("GET", "/api/v4/users?username=alice")[0]["id"], "user_id": alice, "member_id": alice,
        "username": "deploy", "group": "ops", "kind": "gitlab", "session": session, "sessionId": session,
        "sshId": placed, "credential": placed, "key": key, "key_id": key, "id": key, "access_key": access,
        "repository": repository, "repository_id": repository, "repository_uuid": other["repository_uuid"],
        "project_id": project, "project_uuid": project, "key_id deploy": deployed["key_id"],
        "userId": made("GET", f"/api/v3/servers/{web}/users")["data"][0]["id"],
        "key unmanaged": made("GET", "/servers/web-1/unmanaged-keys")["items"][0]["id"],
        "grant": made("POST", "/grants", grant)["id"],
        "request": made("POST", "/requests", asked, MEMBER)["id"],
        "token": made("POST", "/tokens", {"name": "ci", "scopes": ["iam:self"]})["id"],
        "webhook": made("POST", "/webhooks", {"url": NOWHERE})["id"],
        "freeze": made("POST", "/freezes", {"server": "db-1"})["id"],
        "event": made("GET", "/events")["items"][0]["id"],
    }  # fmt: skip


def _enrol(service: Service, token: str, server_id: int) -> None:
    """Its host comes, and says which key and which session it found."""
    instance = service.instance
    actor = tokens.authenticate(instance, token, address="192.0.2.1", channel="native")
    enrolment.enrol(instance, servers.invite(instance, actor, server_id), {}, address="192.0.2.10")
    signed = documents.signed(instance, server_id)
    assert signed is not None
    session = {"id": "1-2", "user": "deploy", "address": "192.0.2.7", "started_at": "2026-01-01T00:00:00Z"}
    reported = {
        "revision": signed.revision, "state": "applied", "keys_found": [entry(fresh_line())],
        "sessions": [{**session, "fingerprint": ""}],
    }  # fmt: skip
    reports.ingest(instance, servers.get(instance, actor, server_id), reported)


@dataclass(frozen=True)
class Problem:
    """What may not be: which call, who asked it, what is wrong, what was sent and what came back."""

    call: str
    who: str
    words: str
    sent: str
    answered: str

    def __str__(self) -> str:
        return f"{self.call} by {self.who}: {self.words}; sent {self.sent}; answered {self.answered}"


@dataclass
class Run:
    """Calls to one service. examples: how many that are as described, and that are not, the owner sends; the others
    send a third. number: what they are made from. quick: not all callers ask each call, and what one changed stays for
    the next.
    """

    service: Service
    examples: int
    number: int
    quick: bool = False
    problems: list[Problem] = field(default_factory=list)
    answered: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # API, caller, what came of it
    done: set[tuple[str, str]] = field(default_factory=set)  # caller and the name of a call that was done at least once

    def __post_init__(self) -> None:
        self._session = requests.Session()
        self._worlds = 0
        self._world: World | None = None
        self._chance = random.Random(self.number)
        self.service.apply(STRANGERS)
        description = self.service.call("GET", "/openapi.json").json()
        self._schemes = description["components"]["securitySchemes"]
        given_up = {"generation": {"with-security-parameters": False}, "headers": {}}
        self._schema = schemathesis.openapi.from_dict(description, config=schemathesis.Config.from_dict(given_up))

        self.callers = (NOBODY, STRANGER, MEMBER, OWNER)
        self.api_of = {_name(one): one.definition.raw["tags"][0] for one in self.operations()}

    def operations(self, most: int = 0) -> list[APIOperation[Any, Any, Any, Any]]:
        """Each call that is described, or so many of them, by chance."""
        every = []
        for found in self._schema.get_all_operations():
            assert isinstance(found, Ok), found.err()
            every.append(found.ok())
        return self._chance.sample(every, most) if most else every

    def done_by(self, who: str) -> set[str]:
        """What a caller changed."""
        return {name for caller, name in self.done if caller == who and not name.startswith("GET ")}

    def world(self) -> World:
        """A workspace in which all is as it was made."""
        if self._world is None:
            self._worlds += 1
            self._world = make_world(self.service, self._worlds)
        return self._world

    def ask(self, operation: APIOperation[Any, Any, Any, Any]) -> None:
        """All kinds of callers, with what is as described and with what is not."""
        others = [self._chance.choice((STRANGER, MEMBER))] if self.quick else [STRANGER, MEMBER]
        in_path = list(operation.path_parameters)
        for who in (NOBODY, *others, OWNER):
            many = self.examples if who == OWNER else max(1, self.examples // 3)
            if who == OWNER and (shown := _shown(operation)) is not None:
                self._asked(operation, who, GenerationMode.POSITIVE, 1, is_known=True, body=shown)
            for is_known in (True, False) if in_path and not self.quick else (True,):
                self._asked(operation, who, GenerationMode.POSITIVE, many, is_known=is_known)
            if _can_be_wrong(operation) and not (self.quick and who != OWNER):
                self._asked(operation, who, GenerationMode.NEGATIVE, many, is_known=True)
            if operation.method != "get" and not self.quick and (who, _name(operation)) in self.done:
                self._world = None

    def _asked(
        self, operation: APIOperation[Any, Any, Any, Any], who: str, mode: GenerationMode, many: int, *, is_known: bool,
        body: Any = NOT_SET,
    ) -> None:  # fmt: skip
        """Calls of one kind. is_known: whether what stands in the path is there; body: one that is not generated."""
        named = {one.name: "1" for one in operation.path_parameters} if is_known else None

        @seed(self.number)
        @settings(
            max_examples=many, database=None, deadline=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=operation.as_strategy(generation_mode=mode, path_parameters=named, body=body))
        def each(case: Case[Any]) -> None:
            if body is not NOT_SET:
                case.body = deepcopy(body)
            self._one(case, who, mode, is_known=is_known, often=1.0 if body is not NOT_SET else 0.8)

        each()

    def _one(self, case: Case[Any], who: str, mode: GenerationMode, *, is_known: bool, often: float) -> None:
        world = self.world()
        if is_known:
            case.path_parameters = {name: _of_path(world, case.path, name) for name in case.path_parameters}
        if isinstance(case.body, dict) and mode.is_positive:
            self._fill(case.body, world, often)
        if "key-sources" in case.path and isinstance(case.body, dict):
            case.body["url"] = NOWHERE
        operation = case.operation
        api = operation.definition.raw["tags"][0]
        proof = world.headers(who, self._schemes[api])
        answer = case.call(base_url=self.service.url, session=self._session, headers=proof, timeout=SECONDS)
        status = answer.status_code
        self.answered[api, who, "done" if status < 400 else "refused"] += 1
        if status < 400:
            self.done.add((who, _name(operation)))
        sent = f"{case.method.upper()} {answer.request.url} {answer.request.body!r:.300}"

        def wrong(words: str) -> None:
            self.problems.append(Problem(_name(operation), who, words, sent, f"{status} {answer.text:.200}"))

        if status < 400 and str(status) not in operation.definition.raw["responses"]:
            wrong(f"{status} is not described")
        if who == NOBODY and operation.definition.raw["security"] and status != 401:
            wrong("somebody who proves nothing is not told so")
        if who == STRANGER and status < 400 and is_known and set(case.path_parameters) - NAMES:
            wrong("somebody of another workspace is answered")
        if often == 1 and api == "native" and status in (400, 422) and _name(operation) not in OF_ONE_HOST:
            wrong("the example that the description shows is refused")
        if mode.is_positive and status in (400, 422) and _asks_for_a_page(operation):
            wrong("what is as described is refused")
        # Some APIs take what is no number of a page for not sent; RunCloud an empty one, as frameworks do.
        unsent = _asks_for_a_page(operation) and (api in ANY_PAGE or "" in _queried(answer.request.url or ""))
        refused = mode.is_negative and who == OWNER and not unsent
        for failure in _failures(case, answer, CHECKS + ([negative_data_rejection] if refused else [])):
            wrong(f"{type(failure).__name__}: {' '.join(str(failure).split())[:300]}")
        if who == OWNER and (status == 401 or (status < 400 and case.method.upper() == "DELETE")):
            self._world = None

    def _fill(self, body: dict[str, Any], world: World, often: float) -> None:
        """Put into a body, so often, what there is, where a field is named so; what is null stays so."""
        for name, value in body.items():
            if isinstance(value, dict):
                self._fill(value, world, often)
            elif value is not None and name in world.of_body and self._chance.random() < often:
                body[name] = self._chance.choice(world.of_body[name])


def _failures(case: Case[Any], answer: Any, checks: list[CheckFunction]) -> Iterator[Failure]:
    try:
        case.validate_response(answer, checks=checks)
    except FailureGroup as group:
        yield from group.exceptions


def _queried(url: str) -> list[str]:
    """The values of a query as they were sent: an object or a list that holds nothing is an empty text there."""
    return [value for _, value in parse_qsl(urlsplit(url).query, keep_blank_values=True)]


def _can_be_wrong(operation: APIOperation[Any, Any, Any, Any]) -> bool:
    """Whether there is anything that it would not be described as: in a query that takes texts alone, nothing."""
    raw = operation.definition.raw
    typed = [one for one in raw.get("parameters", ()) if one["in"] != "path" and one["schema"] != {"type": "string"}]
    return bool(typed) or "requestBody" in raw


def _shown(operation: APIOperation[Any, Any, Any, Any]) -> Any:
    """The body that the description has as its example, None where a call takes none."""
    content = operation.definition.raw.get("requestBody", {}).get("content", {})
    return content.get("application/json", {}).get("example")


def _asks_for_a_page(operation: APIOperation[Any, Any, Any, Any]) -> bool:
    """Whether all that can be wrong with it are the numbers of a page: texts, and what is between two, have rules."""
    raw = operation.definition.raw
    asked = {one["name"] for one in raw.get("parameters", ()) if one["in"] != "path"}
    return bool(asked) and asked <= openapi.WINDOW.keys() and "requestBody" not in raw


def _name(operation: APIOperation[Any, Any, Any, Any]) -> str:
    return f"{operation.method.upper()} {operation.path}"


def _of_path(world: World, path: str, name: str) -> str:
    kind = " deploy" if "deploy" in path else " unmanaged" if "unmanaged" in path else ""
    return world.of_path.get(name + kind) or world.of_path.get(name, "1")
