"""Requests that no program of good will sends, from tests/data/http_bad.jsonl, to a service of our own on loopback."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CORPUS = Path(__file__).parent / "data" / "http_bad.jsonl"
MAX_SECONDS = 12.0


@dataclass(frozen=True)
class Target:
    """Where keys are added and listed in an API. token: as the API takes it, in this header after these words."""

    name: str
    keys: str
    token: str
    header: str = "Authorization"
    before: str = "Bearer "


@dataclass(frozen=True)
class Answer:
    """What came back. status: None where the connection was closed without a word, 0 for what is no HTTP."""

    status: int | None
    content: bytes
    seconds: float

    def problems(self, case: Mapping[str, Any], token: str) -> list[str]:
        """What no API may do, whatever it was sent."""
        found = []
        if self.status == 0 or (self.status is not None and self.status >= 500 and self.status not in (501, 505)):
            found.append(f"status {self.status}")
        if b"Traceback (most recent call last)" in self.content:
            found.append("a traceback")
        if token.encode() in self.content:
            found.append("the token is echoed")
        if self.seconds > MAX_SECONDS:
            found.append("no answer in time")
        hidden = self.content.split(b"HTTP/1.")[2:]
        if hidden and case["group"] == "raw" and case["name"] != "raw/pipeline-100" and b" 200 " in hidden[-1][:20]:
            found.append("a hidden request was answered")
        return found

    def passes(self, case: Mapping[str, Any]) -> bool:
        """Whether it is among what the case allows."""
        if self.status is None:
            return "close" in case["allow"]
        return self.status in case["allow"] or (self.status < 300 and "ignored" in case["allow"])


def cases() -> Iterator[dict[str, Any]]:
    """All that are one request at its own pace."""
    with CORPUS.open(encoding="ascii") as lines:
        for line in lines:
            case = json.loads(line)
            if case["kind"] != "sequence" and "pace" not in case and case["group"] != "slow":
                yield case


def send(url: str, target: Target, case: Mapping[str, Any]) -> Answer:
    """Send a case to the service at this address."""
    address = urlsplit(url)
    assert address.hostname == "127.0.0.1"
    content = _bytes(f"{address.hostname}:{address.port}", target, case)
    began = time.monotonic()
    with socket.create_connection((address.hostname, address.port or 80), timeout=MAX_SECONDS) as connection:
        got = b""
        try:
            connection.sendall(content)
        except OSError:
            pass  # it may have read enough
        try:
            while piece := connection.recv(65536):
                got += piece
        except OSError:
            pass
    status = re.match(rb"HTTP/\d\.\d (\d{3})", got)
    number = int(status.group(1)) if status else (0 if got else None)
    return Answer(number, got, time.monotonic() - began)


def _bytes(host: str, target: Target, case: Mapping[str, Any]) -> bytes:
    def fill(text: str) -> str:
        for name, value in _names(host, target).items():
            text = text.replace(name, value)
        return text

    if case["kind"] == "raw":
        text = fill(_text(case["raw"])).replace("Authorization: Bearer ", f"{target.header}: {target.before}")
        return text.replace("{LEN}", str(len(text.split("\r\n\r\n", 1)[-1].encode()))).encode("latin-1", "replace")
    method, path = _text(case["method"]), fill(_text(case["path"]))
    if "body_b64" in case:
        body = base64.b64decode(case["body_b64"])
    elif "body_gen" in case:
        body = _text({"gen": case["body_gen"]}).encode()
    else:
        body = fill(_text(case.get("body", ""))).encode("utf-8", "surrogatepass")
    headers = [("Host", host), ("Connection", "close")]
    if case["auth"] == "valid":
        headers.append((target.header, target.before + target.token))
    headers += [(name, fill(_text(value))) for name, value in case["headers"]]
    if body or method in ("POST", "PUT", "PATCH"):
        headers.append(("Content-Length", str(len(body))))
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def _names(host: str, target: Target) -> dict[str, str]:
    token = target.token
    return {
        "{KEYS}": target.keys,
        "{KEYS_UPPER}": target.keys.upper(),
        "{HOST}": host,
        "{TOKEN}": token,
        "{TOKEN_PREFIX}": token[:-4],
        "{TOKEN_UPPER}": token.swapcase(),
        "{TOKEN_SHA256}": hashlib.sha256(token.encode()).hexdigest(),
        "{REVOKED_TOKEN}": "revoked-token",
        "{EXPIRED_TOKEN}": "expired-token",
        "{ID}": "1",
        "{OTHER_ID}": "999999",
    }


def _text(value: Any) -> str:
    """A text of a case: plain, or made of pieces."""
    if not isinstance(value, dict):
        return str(value)
    return "".join(part[1] if part[0] == "lit" else part[1] * part[2] for part in value["gen"])
