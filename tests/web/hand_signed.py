"""SDK-HMAC-SHA256 signed by hand from its published description, independently of the code under test."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, unquote

import httpx2

from tests.services import Service
from tests.web.sdk.clients import AccessKey


def date(offset: timedelta = timedelta()) -> str:
    """X-Sdk-Date, so far from now."""
    return (datetime.now(UTC) + offset).strftime("%Y%m%dT%H%M%SZ")


def canonical(
    method: str, path: str, query: str, headers: Mapping[str, str], signed: Sequence[str], body_hash: str
) -> str:
    """The canonical request; query as it stands in the address."""
    place = "/".join(quote(unquote(part), safe="~") for part in path.split("/"))
    pairs = sorted(tuple(unquote(half) for half in part.partition("=")[::2]) for part in query.split("&") if part)
    asked = "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in pairs)
    lower = {name.lower(): value for name, value in headers.items()}
    lines = "".join(f"{name}:{lower[name].strip()}\n" for name in sorted(signed))
    place = place if place.endswith("/") else place + "/"
    return "\n".join((method, place, asked, lines, ";".join(sorted(signed)), body_hash))


def signature(secret: str, canonical_request: str, at: str) -> str:
    """The signature over a canonical request."""
    hashed = hashlib.sha256(canonical_request.encode()).hexdigest()
    return hmac.new(secret.encode(), f"SDK-HMAC-SHA256\n{at}\n{hashed}".encode(), hashlib.sha256).hexdigest()


def call(
    service: Service,
    key: AccessKey,
    method: str = "GET",
    path: str = "/v4/user/keys",
    *,
    query: str = "",
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    signed: Sequence[str] = ("x-sdk-date",),
    at: str | None = None,
    body_hash: str | None = None,
    sent: Mapping[str, Any] | None = None,
) -> httpx2.Response:
    """Sign a request and send it; sent: what to send instead of what was signed (path, query, body, headers)."""
    when = at or date()
    host = service.url.partition("//")[2]
    given = {"Host": host, "X-Sdk-Date": when, **(headers or {})}
    hashed = body_hash or hashlib.sha256(body).hexdigest()
    text = canonical(method, path, query, given, [name.lower() for name in signed], hashed)
    names = ";".join(sorted(name.lower() for name in signed))
    authorization = (
        f"SDK-HMAC-SHA256 Access={key.id}, SignedHeaders={names}, Signature={signature(key.secret, text, when)}"
    )
    actual = {"path": path, "query": query, "body": body, "headers": {}, **(sent or {})}
    address = actual["path"] + ("?" + actual["query"] if actual["query"] else "")
    wire = {**given, "Authorization": authorization, **actual["headers"]}
    wire = {name: value for name, value in wire.items() if value is not None}
    encoded = [(name.encode(), value.encode()) for name, value in wire.items()]
    return service.client.request(method, address, content=actual["body"], headers=encoded)
