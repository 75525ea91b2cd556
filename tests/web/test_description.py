"""The described API is the served API: every call of every client, and no page that leads nowhere."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from keyrack.cli.main import COMMANDS
from keyrack.web.server import DESCRIBED
from tests.core.keys_for_tests import fresh_line
from tests.services import Service
from tests.transcripts.transcript import DIALECTS, _example, load


def test_every_call_is_described(unchanged_team: Service) -> None:
    described = unchanged_team.call("GET", "/openapi.json").json()
    page = unchanged_team.call("GET", "/docs").text
    played = [
        (step["request"]["method"], step["request"]["path"].partition("?")[0].rstrip("/"))
        for dialect in DIALECTS
        for transcript in load(dialect).values()
        for step in transcript["steps"]
        if "request" in step and step["answer"]["status"] < 300
    ]
    assert len(played) > 50
    patterns = {path: re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path.rstrip("/"))) for path in described["paths"]}
    for method, path in played:
        known = [one for one, pattern in patterns.items() if re.fullmatch(pattern, path)]
        assert any(method.lower() in described["paths"][one] for one in known), f"{method} {path} is not described"
        assert any(one in page for one in known)


def test_every_described_call_is_served(unchanged_team: Service) -> None:
    """Each path leads to an API that knows it: it asks who one is, and does not say that there is no such thing."""
    described = unchanged_team.call("GET", "/openapi.json").json()
    refused = "/v1/users/sshkey/privatekey/verify"  # as if it were not there: nobody may send a private key
    for path, methods in ((path, methods) for path, methods in described["paths"].items() if path != refused):
        there = re.sub(r"\{\w+\}", "1", path)
        for method, described_call in methods.items():
            if not described_call["security"] and "{" in path and path.startswith("/api/"):
                continue  # anybody may ask whether it is there, and hears that it is not
            answer = unchanged_team.call(method.upper(), there, json={} if method in ("post", "put", "patch") else None)
            assert answer.status_code not in (404, 405, 500), f"{method} {there}: {answer.text}"


def test_the_start_page_links_to_existing_pages(unchanged_team: Service) -> None:
    page = unchanged_team.call("GET", "/").text
    links = re.findall(r'href="([^"]+)"', page)
    assert links
    for link in links:
        assert unchanged_team.call("GET", link).status_code == 200
    assert unchanged_team.instance.settings.url in page


def test_health(unchanged_team: Service) -> None:
    assert unchanged_team.call("GET", "/healthz").json()["status"] == "alive"
    assert unchanged_team.call("GET", "/readyz").json() == {"status": "ready"}
    assert unchanged_team.call("GET", "/metrics").status_code == 404


def test_every_call_is_described_in_words_of_its_own(unchanged_team: Service) -> None:
    described = unchanged_team.call("GET", "/openapi.json").json()
    page = unescape(unchanged_team.call("GET", "/docs").text)
    for path, methods in described["paths"].items():
        for method, call in methods.items():
            words = call["summary"]
            assert words in page
            assert len(words.split()) >= 3, f"{method} {path}: {words}"
            assert not re.match("GET|POST|PUT|PATCH|DELETE|HEAD", words), f"{method} {path}: {words}"
            handler = call["operationId"].rsplit(".", 1)[1].strip("_").replace("_", " ")
            assert words.lower() != handler, f"{method} {path}: the name again"


def test_the_start_page_fits_a_service_that_shows_no_token(unchanged_team: Service) -> None:
    page = unchanged_team.call("GET", "/").text
    assert "shown where" not in page
    for command in re.findall(r"<code>keyrack ([a-z-]+)", page):
        assert command in COMMANDS
    for call in re.findall(r"<code>POST (/\S+)</code>", page):
        assert "post" in unchanged_team.call("GET", "/openapi.json").json()["paths"][call]


def test_clients_can_be_generated(unchanged_team: Service) -> None:
    """The description is OpenAPI 3.1, and every name in it leads somewhere."""
    described = unchanged_team.call("GET", "/openapi.json").json()
    OpenAPIV31SpecValidator(described).validate()
    assert {f"{name}.Error" for name in (*DIALECTS, "native")} <= set(described["components"]["schemas"])
    identifiers = [call["operationId"] for methods in described["paths"].values() for call in methods.values()]
    assert len(set(identifiers)) == len(identifiers)
    handlers = {f"{dialect.name}.{call.handler.__name__}" for _, dialect in DESCRIBED for call in dialect.endpoints}
    for _, dialect in DESCRIBED:
        for name in dialect.described.shapes if dialect.described else ():
            first, *_, last = name.split(".")
            assert f"{first}.{last}" in handlers, f"{name} is the shape of no call"


def test_every_call_has_shapes_examples_and_refusals(unchanged_team: Service) -> None:
    described = unchanged_team.call("GET", "/openapi.json").json()
    for path, methods in described["paths"].items():
        for method, call in methods.items():
            place = f"{method} {path}"
            answers = call["responses"]
            done = [answers[status] for status in answers if status[0] == "2"]
            assert done or "404" in answers, place
            for found in done:
                assert found["description"] == "Success.", place
                assert "204" in answers or "content" in found, place
            assert {"429", "503", "default"} <= set(answers), place
            # Who is in a group, which account a server has, and which key a host makes, is said by the path alone.
            if method in ("put", "patch") and not {"deploymentkey", "members", "system-users"} & set(path.split("/")):
                assert "requestBody" in call, place
            for part in (call.get("requestBody", {}), *done, answers["default"]):
                for content in part.get("content", {}).values():
                    whole = {**content["schema"], "components": described["components"]}
                    Draft202012Validator(whole).validate(content["example"])


def test_answers_fit_the_description(team: Service) -> None:
    """Every call that only looks, on a workspace that has one of each, and what makes those."""
    described = team.call("GET", "/openapi.json").json()
    known = _one_of_each(team, described)
    looked = 0
    for path, methods in described["paths"].items():
        if "get" in methods and not path.startswith("/v3/auth/tokens"):
            filled = re.sub(r"\{(\w+)\}", lambda name: known.get(name[1], "1"), path)
            answer = team.call("GET", filled, headers=OLGA)
            _check(described, path, "get", answer)
            looked += answer.status_code == 200
    assert looked >= 50


OLGA = {"X-Auth-Token": "token-of-olga", "Authorization": "Bearer token-of-olga"}
PROJECT = "aa2d97d7e62c4b7da3ffdfc11551f878"


def _check(described: dict[str, Any], path: str, method: str, answer: Any) -> None:
    responses = described["paths"][path][method]["responses"]
    content = responses.get(str(answer.status_code), responses["default"]).get("content")
    if content is None:
        assert answer.content == b"", path
        return
    whole = {**content["application/json"]["schema"], "components": described["components"]}
    Draft202012Validator(whole).validate(answer.json())


def _one_of_each(team: Service, described: dict[str, Any]) -> dict[str, str]:
    def made(method: str, path: str, body: Any, **names: str) -> Any:
        answer = team.call(method, path.format(**names), headers=HUAWEI if path[:2] == "/v" else OLGA, json=body)
        assert answer.status_code in (200, 201), (path, answer.text)
        _check(described, path, method.lower(), answer)
        return answer.json()

    user = made("POST", "/v3/users", {"user": {"name": "newcomer", "password": "newcomer's password"}})["user"]["id"]
    made("PATCH", "/v3/users/{user_id}", {"user": {"enabled": False}}, user_id=user)
    new = {"name": "site", "project_uuid": PROJECT}
    uuid = made("POST", "/v1/repositories", new)["result"]["repository_uuid"]
    member = {"users": [{"id": user, "role": 30}, {"id": "nobody", "role": 20}]}
    made("POST", "/v1/repositories/{repository_uuid}/members", member, repository_uuid=uuid)
    member = {"users": [{"user_iam_id": user, "repository_role_Id": "30"}, {"user_iam_id": "nobody"}]}
    made("POST", "/v4/repositories/{repository_id}/members", member, repository_id="1")
    role = "/v1/repositories/{repository_uuid}/members/{member_id}"
    made("PUT", role, {"role": 20}, repository_uuid=uuid, member_id=user)
    key = {"key_title": "build", "key": fresh_line(), "application": "ci", "can_push": False}
    made("POST", "/v2/repositories/{repository_id}/deploy-keys", key, repository_id="1")
    made("POST", "/v4/repositories/{repository_id}/deploy-keys/check-key", {"key": key["key"]}, repository_id="1")
    made("POST", "/v4/user/keys", {"title": 12312, "key": fresh_line()})
    made("POST", "/v1/users/sshkey", {"title": "desk", "key": fresh_line()})
    access = made("POST", "/v3.0/OS-CREDENTIAL/credentials", {"credential": {}})["credential"]["access"]
    off = {"credential": {"status": "inactive"}}
    made("PUT", "/v3.0/OS-CREDENTIAL/credentials/{access_key}", off, access_key=access)
    made("POST", "/v3.0/OS-CREDENTIAL/securitytokens", {"auth": {"identity": {"methods": ["token"]}}})
    grant = {"user": "alice", "server": "web-1", "system_user": "deploy", "restrictions": {"restrict": True}}
    made("POST", "/api/keyrack/v1/grants", grant)
    credential = {"label": "desk", "username": "deploy", "public_key": fresh_line()}
    made("POST", "/api/keyrack/v1/servers/{server}/credentials", credential, server="1")
    made("PATCH", "/api/keyrack/v1/repositories/{repository}", {"protect_default": True}, repository="1")
    made("POST", "/api/keyrack/v1/servers/{server}/resync", {}, server="1")
    return {
        "user_id": user,
        "repository_uuid": uuid,
        "access_key": access,
        "project_uuid": PROJECT,
        "project_id": PROJECT,
    }


HUAWEI = {"X-Auth-Token": "token-of-olga"}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_answers_in_the_transcripts_fit_the_description(dialect: str, unchanged_team: Service) -> None:
    """Each answer of each transcript, with its examples, against the schema of its call."""
    described = unchanged_team.call("GET", "/openapi.json").json()
    checked = 0
    for transcript in load(dialect).values():
        examples: dict[str, Any] = {}
        for step in (step for step in transcript["steps"] if "request" in step):
            body = _example(step["answer"].get("body"), examples)
            schema = _schema(described, step)
            if schema is not None and body is not None:
                checked += 1
                whole = {**schema, "components": described["components"]}
                Draft202012Validator(whole).validate(body)
    assert checked >= 3


def _schema(described: dict[str, Any], step: dict[str, Any]) -> dict[str, Any] | None:
    path = step["request"]["path"].partition("?")[0].rstrip("/")
    method = step["request"]["method"].lower()
    for known, methods in described["paths"].items():
        pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(known.rstrip("/")))
        if method in methods and re.fullmatch(pattern, path):
            status = step["answer"]["status"]
            answer = methods[method]["responses"].get(str(status), {})
            if status >= 400:
                answer = methods[method]["responses"]["default"]
            content: dict[str, Any] | None = answer.get("content", {}).get("application/json", {}).get("schema")
            if content is not None and not (path.endswith("/shared") and "{" in known):
                return content
    return None


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/healthz", "/readyz", "/metrics"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_a_read_only_path_refuses_other_methods(unchanged_team: Service, path: str, method: str) -> None:
    answer = unchanged_team.call(method, path)
    assert answer.status_code == 405
    assert "GET" in answer.headers["Allow"]
