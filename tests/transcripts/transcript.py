"""Transcripts: what is sent and what must come back, in JSON files that are tests and documentation at once.

A file holds a title, words, what is given (a name that its test knows) and steps. A step is an exchange (title,
request, answer) or something that the host does ("host"). In an answer "<kind example>" stands for any value of a
kind, with an example for readers, and "<kind example as name>" keeps the value; "{name}" stands for a kept value, in
paths and texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import httpx2

FOLDER = Path(__file__).parent
# An integer is a JSON number; all others are texts of this form.
KINDS = {
    "integer": r"-?\d+",
    "date": r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d",
    "time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00",
    "moment": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z",
    "instant": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z",
    "seconds": r"[1-9]\d*",
    "digits": r"\d+",
    "hex": r"[0-9a-f]{32}",
    "text": r".+",
}
PLACE = re.compile(rf"<({'|'.join(KINDS)}) (.*?)(?: as (\w+))?>")
NAME = re.compile(r"\{(\w+)\}")


class Dialect(NamedTuple):
    """How an API's transcripts are played and shown. caller: who calls where a request does not say; logins: for each
    caller the lines that stand for the login on the page; header: where a caller's token goes, with what stands before
    it. team: whether the transcripts need no more than the TEAM of tests/services.py, so that
    tests/web/test_team_transcripts.py plays them; else a test of their own does.
    """

    caller: str
    logins: Mapping[str, tuple[str, ...]]
    header: tuple[str, str] = ("Authorization", "Bearer ")
    team: bool = True


def _token(whose: str) -> tuple[str, ...]:
    return (f"X-Auth-Token: ({whose})",)


HUAWEI = Dialect(
    "alice",
    {
        "alice": _token("of a member with the policy codeartsrepo::*"),
        "olga": _token("of the owner"),
        "bob": _token("of another member"),
        "mallory": _token("of a member without any policy"),
        "victor": _token("of the owner of another workspace"),
        "wrong": _token("a token that is expired, revoked or was never issued"),
        "nobody": (),
    },
    header=("X-Auth-Token", ""),
    team=False,
)
_KNOWN = {
    "alice": "of a member with the policy codeartsrepo::*",
    "olga": "of the owner",
    "bob": "of another member",
    "mallory": "of a member without any policy",
    "wrong": "a token that is expired, revoked or was never issued",
}
GITLAB = Dialect(
    "alice",
    {who: (f"PRIVATE-TOKEN: ({words})",) for who, words in _KNOWN.items()} | {"nobody": ()},
    header=("PRIVATE-TOKEN", ""),
)
GITHUB = Dialect(
    "alice",
    {who: (f"Authorization: token … ({words})",) for who, words in _KNOWN.items()} | {"nobody": ()},
    header=("Authorization", "token "),
)
DIALECTS = {
    "runcloud": Dialect(
        "owner",
        {
            "owner": (),
            "nobody": ("# without an Authorization header",),
            "wrong": ("# Authorization: Bearer of a token that is wrong, expired or revoked",),
            "reader": ("# Authorization: Bearer of a token with the scope credentials:read alone",),
            "access key": ("# Authorization: Basic, with the id and secret of an access key",),
            "stranger": ("# Authorization: Bearer of a token of another workspace",),
        },
        team=False,
    ),
    "codearts": HUAWEI,
    "iam": HUAWEI,
    "gitlab": GITLAB,
    "github": GITHUB,
}


def load(dialect: str) -> dict[str, dict[str, Any]]:
    """Every transcript of a dialect, by the file's name without number and ending, in order."""
    paths = sorted((FOLDER / dialect).glob("*.json"))
    return {path.stem: json.loads(path.read_text("utf-8")) for path in paths}


class Player:
    """Sends the requests of one transcript and compares the answers; keeps what later steps name.

    logins: the headers by which each caller of the dialect is known.
    """

    def __init__(self, dialect: str, client: httpx2.Client, url: str, logins: Mapping[str, Mapping[str, str]]) -> None:
        self.known: dict[str, Any] = {"url": url}
        self._caller = DIALECTS[dialect].caller
        self._client = client
        self._logins = logins

    def play(self, exchange: Mapping[str, Any]) -> None:
        """Send one request and hold the answer against what is written."""
        request, expected = exchange["request"], exchange["answer"]
        headers = {**self._logins[request.get("as", self._caller)], **filled(request.get("headers", {}), self.known)}
        content = filled(request.get("text", ""), self.known).encode()
        if "body" in request:
            content = json.dumps(filled(request["body"], self.known)).encode()
            headers.setdefault("Content-Type", "application/json")
        if "form" in request:
            content = str(httpx2.QueryParams(filled(request["form"], self.known))).encode()
            headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
        path = filled(request["path"], self.known)
        answer = self._client.request(request["method"], path, headers=headers, content=content)
        seen = f"{exchange['title']}: {answer.status_code} {answer.text}"
        assert answer.status_code == expected["status"], seen
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-Id"]), seen
        for name, value in expected.get("headers", {}).items():
            self._compare(value, answer.headers.get(name), f"{seen}: header {name}")
        if "body" not in expected:
            assert not answer.content, seen
            return
        assert answer.headers["content-type"] == "application/json", seen
        self._compare(expected["body"], answer.json(), seen)

    def _compare(self, expected: Any, found: Any, where: str) -> None:
        if isinstance(expected, dict):
            assert isinstance(found, dict), where
            assert list(found) == list(expected), f"{where}: fields"
            for name, value in expected.items():
                self._compare(value, found[name], f"{where}: {name}")
        elif isinstance(expected, list):
            assert isinstance(found, list), where
            assert len(found) == len(expected), f"{where}: length"
            for one, other in zip(expected, found, strict=True):
                self._compare(one, other, where)
        elif isinstance(expected, str) and (place := PLACE.fullmatch(expected)):
            kind, _, name = place.groups()
            assert type(found) is (int if kind == "integer" else str), f"{where}: is no {kind}: {found!r}"
            assert re.fullmatch(KINDS[kind], str(found)), f"{where}: is no {kind}: {found!r}"
            if name:
                self.known[name] = found
        else:
            wanted = filled(expected, self.known)
            assert type(found) is type(wanted), where
            assert found == wanted, where


def page(dialect: str) -> str:
    """The transcripts of a dialect as Markdown, with an example for each placeholder."""
    parts = []
    for transcript in load(dialect).values():
        parts.append(f"## {transcript['title']}\n\n{transcript['words']}\n")
        examples: dict[str, Any] = {"url": "https://keys.example.com"}
        for step in transcript["steps"]:
            if "host" in step:
                parts.append(f"*{step['words']}*\n")
                continue
            parts.append(_shown(DIALECTS[dialect], step, examples))
    return "\n".join(parts)


def _shown(dialect: Dialect, exchange: Mapping[str, Any], examples: dict[str, Any]) -> str:
    request, answer = exchange["request"], exchange["answer"]
    lines = [f"{request['method']} {filled(request['path'], examples)}"]
    lines += dialect.logins[request.get("as", dialect.caller)]
    lines += [f"{name}: {filled(value, examples)}" for name, value in request.get("headers", {}).items()]
    if "body" in request:
        lines += ["", _json(filled(request["body"], examples))]
    if "form" in request:
        lines += ["", str(httpx2.QueryParams(filled(request["form"], examples)))]
    if "text" in request:
        lines += ["", request["text"]]
    # Before the headers are shown: the body gives the examples that they may name.
    body = ["", _json(_example(answer["body"], examples))] if "body" in answer else []
    headers = [f"{name}: {_example(value, examples)}" for name, value in answer.get("headers", {}).items()]
    result = [str(answer["status"]), *headers, *body]
    return f"### {exchange['title']}\n\n" + _block(lines) + "\n" + _block(result)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _block(lines: list[str]) -> str:
    return "```http\n" + "\n".join(lines) + "\n```\n"


def _example(value: Any, examples: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        return {name: _example(inner, examples) for name, inner in value.items()}
    if isinstance(value, list):
        return [_example(inner, examples) for inner in value]
    if isinstance(value, str) and (place := PLACE.fullmatch(value)):
        kind, text, name = place.groups()
        example: Any = int(text) if kind == "integer" else text
        if name:
            examples[name] = example
        return example
    return filled(value, examples)


def filled(value: Any, known: Mapping[str, Any]) -> Any:
    """A value with all names in braces replaced by what is known of them."""
    if isinstance(value, dict):
        return {name: filled(inner, known) for name, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner, known) for inner in value]
    if not isinstance(value, str):
        return value
    whole = NAME.fullmatch(value)
    if whole and whole[1] in known:
        return known[whole[1]]
    return NAME.sub(lambda match: str(known.get(match[1], match[0])), value)
