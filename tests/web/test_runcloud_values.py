"""Good and bad values through RunCloud's API: names of system users, labels, booleans, pages, passwords, bodies."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import pytest

from tests.core.keys_for_tests import fresh_line, records
from tests.services import Service

NAMES = records("names.jsonl")
VALUES = records("values.jsonl")
CREDENTIALS = "/api/v3/servers/1/ssh/credentials"
USERS = "/api/v3/servers/1/users"


def of(found: list[dict[str, Any]], field: str) -> list[dict[str, Any]]:
    """The records of one field, long values spelled out."""
    return [{**record, "value": spelled(record["value"])} for record in found if record["field"] == field]


def spelled(value: Any) -> Any:
    """A recipe for a long text, followed; any other value as it is."""
    if isinstance(value, dict) and "gen" in value:
        return "".join(part[1] * (part[2] if part[0] == "rep" else 1) for part in value["gen"])
    return value


def send(team: Service, method: str, path: str, body: Any) -> tuple[int, Any]:
    """JSON with every odd character escaped, so that lone surrogates can be sent too."""
    answer = team.call(
        method,
        path,
        token="token-of-olga",
        content=json.dumps(body).encode("ascii"),
        headers={"Content-Type": "application/json"},
    )
    return answer.status_code, answer.json()


def test_published_names_of_system_users_are_accepted_or_refused_as_listed(team: Service) -> None:
    for record in of(NAMES, "username"):
        status, body = send(team, "POST", USERS, {"username": record["value"]})
        expected = {"accepted": (200,), "rejected": (422,), "arguable": (200, 422)}[record["must_be"]]
        assert status in expected, record
        if status == 422:
            assert list(body["errors"]) == ["username"], record
        else:
            assert body["username"] == record["value"]
            deleted = team.call("DELETE", f"{USERS}/{body['id']}", token="token-of-olga")
            assert deleted.status_code == 200


def test_published_labels_are_accepted_or_refused_as_listed(team: Service) -> None:
    line = fresh_line()
    for record in of(NAMES, "label"):
        value = record["value"]
        status, body = send(team, "POST", CREDENTIALS, {"label": value, "username": "deploy", "publicKey": line})
        # RunCloud's labels have a smaller alphabet than Keyrack's titles.
        fits = isinstance(value, str) and all(c in "-_" or unicodedata.category(c)[0] in "LMN" for c in value)
        if record["must_be"] == "accepted" and fits:
            assert (status, body.get("label")) == (200, value), record
        else:
            assert (status, list(body["errors"])) == (422, ["label"]), record


def test_booleans_are_strict_in_json(team: Service) -> None:
    for number, record in enumerate(of(VALUES, "temporary")):
        body = {"label": f"l{number}", "username": "deploy", "publicKey": fresh_line(), "temporary": record["value"]}
        status, answer = send(team, "POST", CREDENTIALS, body)
        if record["must_be"] == "accepted":
            assert (status, answer["temporary"]) == (200, record["value"]), record
        else:
            assert (status, list(answer["errors"])) == (422, ["temporary"]), record
        status, answer = send(team, "PATCH", "/api/v3/servers/1/ssh/config", {"useDns": record["value"]})
        assert status == (200 if record["must_be"] == "accepted" else 422), record


@pytest.mark.parametrize(
    ("sent", "meant"), [("1", True), ("true", True), ("0", False), ("false", False), ("", None), ("on", None)]
)
def test_booleans_in_forms_are_words(team: Service, sent: str, meant: bool | None) -> None:
    form = {"label": "x", "username": "deploy", "publicKey": fresh_line(), "temporary": sent}
    answer = team.call("POST", CREDENTIALS, token="token-of-olga", data=form)
    if meant is None:
        assert (answer.status_code, list(answer.json()["errors"])) == (422, ["temporary"])
    else:
        assert (answer.status_code, answer.json()["temporary"]) == (200, meant)


def test_a_form_whose_pluses_nobody_encoded_says_so(unchanged_team: Service) -> None:
    line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHIRbfEUwbS5A/6b6HLVEWWJmeUNEZ2mRfWWONaec+Id me@desk"
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    content = f"label=x&username=deploy&publicKey={line}"
    answer = unchanged_team.call("POST", CREDENTIALS, token="token-of-olga", content=content, headers=kind)
    assert (answer.status_code, list(answer.json()["errors"])) == (422, ["publicKey"])
    assert "%2B" in answer.json()["message"]


def test_pages(team: Service) -> None:
    for record in of(VALUES, "limit"):
        for name in ("page", "perPage"):
            answer = team.call("GET", CREDENTIALS, token="token-of-olga", params={name: str(record["value"])})
            assert answer.status_code == 422, record
            # A NUL spoils the query as a whole.
            assert list(answer.json()["errors"]) == (["body"] if "\x00" in str(record["value"]) else [name]), record


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"label": "a", "label": "b"}', "The body names a field twice."),
        (b'{"label": {"a": 1, "a": 1}}', "The body names a field twice."),
        (
            json.dumps(dict.fromkeys(map(str, range(1001)))).encode(),
            "The body has more than 1000 fields in one object.",
        ),
        (b'{"label": NaN}', "The body is not valid JSON."),
    ],
)
def test_ambiguous_json_is_refused_in_words(unchanged_team: Service, content: bytes, words: str) -> None:
    kind = {"Content-Type": "application/json"}
    answer = unchanged_team.call("POST", CREDENTIALS, token="token-of-olga", content=content, headers=kind)
    assert (answer.status_code, answer.json()["message"]) == (422, words)
    kind["X-Auth-Token"] = "token-of-alice"
    answer = unchanged_team.call("POST", "/v4/user/keys", content=content, headers=kind)
    assert (answer.status_code, answer.json()["error_msg"]) == (400, words)


@pytest.mark.parametrize("name", ["page", "perPage"])
@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ("0", "must be at least 1."),
        ("-1", "must be at least 1."),
        ("0000000000", "must be at least 1."),
        ("10000000000", "must not be greater than 9999999999."),
        ("9" * 5000, "must not be greater than 9999999999."),
        ("+1", "must be an integer."),
        ("1.0", "must be an integer."),
        ("--1", "must be an integer."),
    ],
)
def test_an_invalid_page_is_refused_in_words(unchanged_team: Service, name: str, sent: str, words: str) -> None:
    answer = unchanged_team.call("GET", CREDENTIALS, token="token-of-olga", params={name: sent})
    assert (answer.status_code, answer.json()["message"]) == (422, f"The {name} field {words}")


@pytest.mark.parametrize(
    "password", ["", None, 12345678, "short", "x" * 256, "é" * 128, "line\nbreak here", "nul\0nul here", "\ud800" * 9]
)
def test_invalid_passwords_are_refused(unchanged_team: Service, password: Any) -> None:
    user = unchanged_team.call("GET", f"{USERS}?search=deploy", token="token-of-olga").json()["data"][0]
    status, body = send(unchanged_team, "PATCH", f"{USERS}/{user['id']}/password", {"password": password})
    assert (status, list(body["errors"])) == (422, ["password"])
    if password not in ("", None):
        status, body = send(unchanged_team, "POST", USERS, {"username": "fresh", "password": password})
        assert (status, list(body["errors"])) == (422, ["password"])


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"null", "application/json"),
        (b"[]", ""),
        (b"{}", "application/vnd.api+json"),
        (b"", "application/json"),
        (b"", "application/x-www-form-urlencoded"),
    ],
)
def test_calls_without_fields_take_what_programs_send(team: Service, content: bytes, kind: str) -> None:
    user = team.call("POST", USERS, token="token-of-olga", json={"username": "shop"}).json()
    path = f"{USERS}/{user['id']}"
    headers = {"Content-Type": kind} if kind else {}
    for method, tail in (("GET", ""), ("PATCH", "/deploymentkey"), ("DELETE", "")):
        answer = team.call(method, path + tail, token="token-of-olga", content=content, headers=headers)
        assert (answer.status_code, answer.json()["username"]) == (200, "shop"), (method, answer.text)


@pytest.mark.parametrize(
    "path",
    [
        "/api/v3",
        "/api/v3/",
        "/api/v2",
        "/api/v3/agency",
        "/api/v3//servers",
        "/api/v3/servers/1/ssh",
        "/api/v3/servers/one",
        "/api/v3/servers/1x",
        "/api/v3/servers/-1",
        "/api/v3/servers/99999999999999999999",
        "/api/v3/servers/%00",
        "/api/v3/agency/agency/servers",
        "/api/v2/settings",
        "/api/v3/v4/user/keys",
    ],
)
def test_paths_that_lead_nowhere(unchanged_team: Service, path: str) -> None:
    answer = unchanged_team.client.get(path, headers={"Authorization": "Bearer token-of-olga"}, follow_redirects=False)
    assert (answer.status_code, answer.json()) == (404, {"message": "Resources not found."})
    assert answer.headers["x-ratelimit-limit"] == "6000"


@pytest.mark.parametrize("path", ["/api/v3/servers/", "/api/v3/ping/", "/api/v2/servers/1/sshcredentials/"])
def test_a_trailing_slash_is_not_redirected(unchanged_team: Service, path: str) -> None:
    answer = unchanged_team.client.get(path, headers={"Authorization": "Bearer token-of-olga"}, follow_redirects=False)
    assert answer.status_code == 200


def test_accept_is_not_asked_for(team: Service) -> None:
    for accept in ("text/html", "application/xml", "*/*"):
        answer = team.call("GET", "/api/v3/servers", token="token-of-olga", headers={"Accept": accept})
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
        answer = team.call("GET", "/api/v3/nothing", token="token-of-olga", headers={"Accept": accept})
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/json")


def test_invalid_keys_are_refused(team: Service) -> None:
    for number, record in enumerate(records("keys_invalid.jsonl")):
        line = record.get("input", spelled({"gen": record.get("input_gen", [])}))
        body = {"label": f"l{number}", "username": "deploy", "publicKey": line}
        status, answer = send(team, "POST", CREDENTIALS, body)
        # What is longer than any request may be is refused before it is read.
        too_long = len(str(line)) > team.instance.settings.max_body_bytes
        wanted = (413, []) if too_long else (422, ["publicKey"])
        assert (status, list(answer.get("errors", ()))) == wanted, record["name"]
        assert too_long or answer["message"] == answer["errors"]["publicKey"][0]
    assert team.call("GET", CREDENTIALS, token="token-of-olga").json()["data"] == []
