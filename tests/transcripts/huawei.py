"""Plays the transcripts of CodeArts and IAM against a service, and shows them as the pages under docs/api.

A file holds a title, words and steps; a step a title, a request and an answer. In an answer "<kind example>" stands
for any value of a kind, with an example for readers, and "<kind example as name>" keeps the value; "{name}" stands
for a kept value. `python -m tests.transcripts.huawei` writes the pages again, below their mark.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.services import Service

FOLDER = Path(__file__).parent
DOCS = FOLDER.parents[1] / "docs" / "api"
MARK = "<!-- transcripts: python -m tests.transcripts.huawei -->\n"
DIALECTS = ("codearts", "iam")
WHO = {
    "alice": "a member with the policy codeartsrepo::*",
    "olga": "the owner",
    "bob": "another member",
    "mallory": "a member without any policy",
    "victor": "the owner of another workspace",
    "nobody": "no credentials at all",
    "wrong": "a token that is expired, revoked or was never issued",
}
KINDS = {
    "integer": r"\d+",
    "digits": r"\d+",
    "time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00",
    "moment": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z",
    "hex": r"[0-9a-f]{32}",
    "text": r".+",
}
PLACE = re.compile(rf"<({'|'.join(KINDS)}) (.*?)(?: as (\w+))?>")
NAME = re.compile(r"\{(\w+)\}")


def load(dialect: str) -> dict[str, dict[str, Any]]:
    """Every transcript of a dialect by its file's name, in order."""
    return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted((FOLDER / dialect).glob("*.json"))}


def headers_of(request: Mapping[str, Any]) -> dict[str, str]:
    """The headers to send: the caller's token and what the step adds."""
    who = request.get("as", "alice")
    token = (
        {} if who == "nobody" else {"X-Auth-Token": "a token that never was" if who == "wrong" else f"token-of-{who}"}
    )
    return {**token, **request.get("headers", {})}


def play(service: Service, transcript: Mapping[str, Any]) -> None:
    """Send each request, and hold the answer against what is written."""
    known: dict[str, Any] = {"url": service.url}
    for step in transcript["steps"]:
        request, expected = step["request"], step["answer"]
        answer = service.call(
            request["method"],
            _filled(request["path"], known),
            headers=_filled(headers_of(request), known),
            json=_filled(request.get("body"), known),
        )
        seen = f"{step['title']}: {answer.status_code} {answer.text}"
        assert answer.status_code == expected["status"], seen
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-Id"])
        for name, value in expected.get("headers", {}).items():
            _compare(value, answer.headers.get(name), known, f"{seen}: {name}")
        _compare(expected.get("body"), answer.json() if answer.content else None, known, seen)


def page(dialect: str) -> str:
    """The transcripts of a dialect as Markdown, with an example for each placeholder."""
    parts = []
    for transcript in load(dialect).values():
        examples: dict[str, Any] = {"url": "https://keys.example.com"}
        parts.append(f"## {transcript['title']}\n\n{transcript['words']}\n")
        parts += [_shown(step, examples) for step in transcript["steps"]]
    return "\n".join(parts)


def _shown(step: Mapping[str, Any], examples: dict[str, Any]) -> str:
    request, answer = step["request"], step["answer"]
    who = request.get("as", "alice")
    lines = [f"{request['method']} {_filled(request['path'], examples)}"]
    if who != "nobody":
        lines.append(f"X-Auth-Token: (of {WHO[who]})" if who != "wrong" else f"X-Auth-Token: ({WHO[who]})")
    lines += [f"{name}: {_filled(value, examples)}" for name, value in request.get("headers", {}).items()]
    if "body" in request:
        lines += ["", json.dumps(_filled(request["body"], examples), indent=2, ensure_ascii=False)]
    result = [str(answer["status"])]
    result += [f"{name}: {_example(value, examples)}" for name, value in answer.get("headers", {}).items()]
    if answer.get("body") is not None:
        result += ["", json.dumps(_example(answer["body"], examples), indent=2, ensure_ascii=False)]
    return f"### {step['title']}\n\n" + "\n".join(["```http", *lines, "```", "", "```http", *result, "```", ""])


def _compare(expected: Any, found: Any, known: dict[str, Any], where: str) -> None:
    if isinstance(expected, dict):
        assert isinstance(found, dict), where
        assert set(found) == set(expected), f"{where}: fields"
        for name, value in expected.items():
            _compare(value, found[name], known, f"{where}: {name}")
    elif isinstance(expected, list):
        assert isinstance(found, list), where
        assert len(found) == len(expected), f"{where}: length"
        for one, other in zip(expected, found, strict=True):
            _compare(one, other, known, where)
    elif isinstance(expected, str) and (place := PLACE.fullmatch(expected)):
        kind, _, name = place.groups()
        assert type(found) is (int if kind == "integer" else str), where
        assert re.fullmatch(KINDS[kind], str(found)), f"{where}: {found!r} is no {kind}"
        if name:
            known[name] = found
    else:
        wanted = _filled(expected, known)
        assert type(found) is type(wanted), where
        assert found == wanted, where


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


def _filled(value: Any, known: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        return {name: _filled(inner, known) for name, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, known) for inner in value]
    if not isinstance(value, str):
        return value
    whole = NAME.fullmatch(value)
    if whole and whole[1] in known:
        return known[whole[1]]
    return NAME.sub(lambda match: str(known.get(match[1], match[0])), value)


def main() -> None:
    """Write the pages again."""
    for dialect in DIALECTS:
        path = DOCS / f"{dialect}.md"
        before, mark, _ = path.read_text("utf-8").partition(MARK)
        if not mark:
            raise SystemExit(f"{path} has no line {MARK.strip()}")
        path.write_text(before + mark + page(dialect), "utf-8")


if __name__ == "__main__":
    main()
