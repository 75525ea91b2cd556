"""The described API is the served API: every call of every door, and no page that leads nowhere."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from keyrack.cli.main import COMMANDS
from keyrack.web.server import DESCRIBED
from keyrack.web.shapes import SHAPES
from tests.services import Service
from tests.transcripts.transcript import _example, load


def test_every_call_is_described(team: Service) -> None:
    described = team.call("GET", "/openapi.json").json()
    calls = {(method.upper(), path) for path, methods in described["paths"].items() for method in methods}
    assert calls == {(call.method, prefix + call.path) for prefix, dialect in DESCRIBED for call in dialect.endpoints}
    page = team.call("GET", "/docs").text
    for _, path in calls:
        assert path in page


def test_first_page_leads_to_what_there_is(team: Service) -> None:
    page = team.call("GET", "/").text
    links = re.findall(r'href="([^"]+)"', page)
    assert links
    for link in links:
        assert team.call("GET", link).status_code == 200
    assert team.instance.settings.url in page


def test_health(team: Service) -> None:
    assert team.call("GET", "/healthz").json()["status"] == "alive"
    assert team.call("GET", "/readyz").json() == {"status": "ready"}
    assert team.call("GET", "/metrics").status_code == 404


def test_every_call_is_described_in_words_of_its_own(team: Service) -> None:
    described = team.call("GET", "/openapi.json").json()
    page = unescape(team.call("GET", "/docs").text)
    for path, methods in described["paths"].items():
        for method, call in methods.items():
            words = call["summary"]
            assert words in page
            assert len(words.split()) >= 3, f"{method} {path}: {words}"
            assert not re.match("GET|POST|PUT|PATCH|DELETE|HEAD", words), f"{method} {path}: {words}"
            handler = call["operationId"].rsplit(".", 1)[1].strip("_").replace("_", " ")
            assert words.lower() != handler, f"{method} {path}: the name again"


def test_the_first_page_is_true_of_a_service_that_shows_no_token(team: Service) -> None:
    page = team.call("GET", "/").text
    assert "shown where" not in page
    for command in re.findall(r"<code>keyrack ([a-z-]+)", page):
        assert command in COMMANDS
    for call in re.findall(r"<code>POST (/\S+)</code>", page):
        assert "post" in team.call("GET", "/openapi.json").json()["paths"][call]


def test_clients_can_be_generated(team: Service) -> None:
    """The description is OpenAPI 3.1, and every name in it leads somewhere."""
    described = team.call("GET", "/openapi.json").json()
    OpenAPIV31SpecValidator(described).validate()
    assert {f"{name}.Error" for name in ("runcloud", "codearts", "iam", "native")} <= set(
        described["components"]["schemas"]
    )
    identifiers = [call["operationId"] for methods in described["paths"].values() for call in methods.values()]
    assert len(set(identifiers)) == len(identifiers)
    handlers = {f"{dialect.name}.{call.handler.__name__}" for _, dialect in DESCRIBED for call in dialect.endpoints}
    for name in SHAPES:
        first, *_, last = name.split(".")
        assert f"{first}.{last}" in handlers, f"{name} is the shape of no call"


@pytest.mark.parametrize("dialect", ["runcloud", "codearts", "iam"])
def test_what_the_transcripts_answer_is_as_described(dialect: str, team: Service) -> None:
    """Each answer of each transcript, with its examples, against the schema of its call."""
    described = team.call("GET", "/openapi.json").json()
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
