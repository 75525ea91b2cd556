"""The described API is the served API: every call of every door, and no page that leads nowhere."""

from __future__ import annotations

import re
from html import unescape

from keyrack.cli.main import COMMANDS
from keyrack.web.server import DOORS
from tests.services import Service


def test_every_call_is_described(team: Service) -> None:
    described = team.call("GET", "/openapi.json").json()
    calls = {(method.upper(), path) for path, methods in described["paths"].items() for method in methods}
    assert calls == {(call.method, prefix + call.path) for prefix, dialect in DOORS for call in dialect.endpoints}
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
