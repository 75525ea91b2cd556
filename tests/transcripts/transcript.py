"""Transcripts: what is sent and what must come back, in JSON files that are tests and documentation at once.

A file holds a title, words, what is given (names of tests/transcripts/given.py) and steps. A step is an exchange
(title, request, answer) or something that the host does ("host"). In an answer "<kind example>" stands for any
value of a kind, with an example for readers, and "<kind example as name>" keeps the value; "{name}" stands for a
kept value, in paths and texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx2

FOLDER = Path(__file__).parent
KINDS: dict[str, Callable[[Any], bool]] = {
    "integer": lambda value: type(value) is int,
    "date": lambda value: _is(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", value),
    "log date": lambda value: _is(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", value),
    "seconds": lambda value: _is(r"[1-9]\d*", value),
    "digits": lambda value: _is(r"\d+", value),
    "text": lambda value: isinstance(value, str) and value != "",
}
PLACE = re.compile(r"<(integer|log date|date|seconds|digits|text) (.*?)(?: as (\w+))?>")
NAME = re.compile(r"\{(\w+)\}")


def load(dialect: str) -> dict[str, dict[str, Any]]:
    """Every transcript of a dialect, by the file's name without number and ending, in order."""
    paths = sorted((FOLDER / dialect).glob("*.json"))
    return {path.stem: json.loads(path.read_text("utf-8")) for path in paths}


class Player:
    """Sends the requests of one transcript and compares the answers; keeps what later steps name."""

    def __init__(self, client: httpx2.Client, url: str, logins: Mapping[str, Mapping[str, str]]) -> None:
        self.known: dict[str, Any] = {"url": url}
        self._client = client
        self._logins = logins

    def play(self, exchange: Mapping[str, Any]) -> None:
        """Send one request and hold the answer against what is written."""
        request, expected = exchange["request"], exchange["answer"]
        headers = {**self._logins[request.get("as", "owner")], **request.get("headers", {})}
        content = self._fill(request.get("text", "")).encode()
        if "body" in request:
            content = json.dumps(self._fill(request["body"])).encode()
            headers.setdefault("Content-Type", "application/json")
        if "form" in request:
            content = str(httpx2.QueryParams(self._fill(request["form"]))).encode()
            headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
        answer = self._client.request(request["method"], self._fill(request["path"]), headers=headers, content=content)
        seen = f"{exchange['title']}: {answer.status_code} {answer.text}"
        assert answer.status_code == expected["status"], seen
        assert answer.headers["content-type"] == "application/json", seen
        for name, value in expected.get("headers", {}).items():
            self._compare(value, answer.headers.get(name), f"{seen}: header {name}")
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
            assert KINDS[kind](found), f"{where}: is no {kind}: {found!r}"
            if name:
                self.known[name] = found
        else:
            wanted = self._fill(expected)
            assert type(found) is type(wanted), where
            assert found == wanted, where

    def _fill(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self._fill(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [self._fill(inner) for inner in value]
        if not isinstance(value, str):
            return value
        whole = NAME.fullmatch(value)
        if whole and whole[1] in self.known:
            return self.known[whole[1]]
        return NAME.sub(lambda match: str(self.known.get(match[1], match[0])), value)


def page(dialect: str) -> str:
    """The transcripts of a dialect as Markdown, with an example for each placeholder."""
    parts = []
    for transcript in load(dialect).values():
        parts.append(f"## {transcript['title']}\n\n{transcript['words']}\n")
        examples = {"url": "https://keys.example.com"}
        for step in transcript["steps"]:
            if "host" in step:
                parts.append(f"*{step['words']}*\n")
                continue
            parts.append(_shown(step, examples))
    return "\n".join(parts)


def _shown(exchange: Mapping[str, Any], examples: dict[str, Any]) -> str:
    request, answer = exchange["request"], exchange["answer"]
    body = _example(answer["body"], examples)
    lines = [f"{request['method']} {_filled(request['path'], examples)}"]
    login = request.get("as", "owner")
    if login != "owner":
        lines.append(f"# {LOGIN_WORDS[login]}")
    lines += [f"{name}: {value}" for name, value in request.get("headers", {}).items()]
    if "body" in request:
        lines += ["", json.dumps(_filled(request["body"], examples), indent=2, ensure_ascii=False)]
    if "form" in request:
        lines += ["", str(httpx2.QueryParams(_filled(request["form"], examples)))]
    if "text" in request:
        lines += ["", request["text"]]
    headers = [f"{name}: {_example(value, examples)}" for name, value in answer.get("headers", {}).items()]
    result = [str(answer["status"]), *headers, "", json.dumps(body, indent=2, ensure_ascii=False)]
    return f"### {exchange['title']}\n\n" + _block("http", lines) + "\n" + _block("http", result)


LOGIN_WORDS = {
    "nobody": "without an Authorization header",
    "wrong": "Authorization: Bearer of a token that is wrong, expired or revoked",
    "reader": "Authorization: Bearer of a token with the scope credentials:read alone",
    "access key": "Authorization: Basic, with the id and secret of an access key",
    "stranger": "Authorization: Bearer of a token of another workspace",
}


def _block(kind: str, lines: list[str]) -> str:
    return f"```{kind}\n" + "\n".join(lines) + "\n```\n"


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
    return _filled(value, examples)


def _filled(value: Any, examples: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        return {name: _filled(inner, examples) for name, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, examples) for inner in value]
    if not isinstance(value, str):
        return value
    whole = NAME.fullmatch(value)
    if whole and whole[1] in examples:
        return examples[whole[1]]
    return NAME.sub(lambda match: str(examples.get(match[1], match[0])), value)


def _is(pattern: str, value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(pattern, value) is not None
