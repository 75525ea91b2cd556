"""HTTP without TLS for tests: httpx2 would read all authorities that the system trusts each time; checks nothing."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from functools import partial
from typing import Any

import httpx2

# It trusts nobody. Reading the authorities that a system trusts takes 35 ms, and nothing here speaks TLS.
PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

get = partial(httpx2.get, verify=PLAIN)
post = partial(httpx2.post, verify=PLAIN)

_IDLE_SECONDS = 2  # less than the service keeps a connection open for


class Caller:
    """Asks one service over and over on one connection, for a third of what httpx2 takes; for tests that ask thousands
    of times and look at status and body alone.
    """

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
        self._last = 0.0

    def call(self, method: str, path: str, token: str, body: Any = None) -> tuple[int, bytes]:
        """Status and body. token: a bearer token; body: sent as JSON unless it is None."""
        with self._asked(method, path, {"Authorization": f"Bearer {token}"}, body) as answer:
            return answer.status, answer.read()

    def ask(self, method: str, path: str, headers: Mapping[str, str], body: Any = None) -> tuple[int, Message]:
        """Status and headers. headers: those of the request; body: sent as JSON unless it is None."""
        with self._asked(method, path, headers, body) as answer:
            answer.read()
            return answer.status, answer.headers

    @contextmanager
    def _asked(
        self, method: str, path: str, headers: Mapping[str, str], body: Any
    ) -> Iterator[http.client.HTTPResponse]:
        if time.monotonic() - self._last > _IDLE_SECONDS:
            self._connection.close()
        sent = None
        if body is not None:
            sent = json.dumps(body).encode()
            headers = {**headers, "Content-Type": "application/json"}
        self._connection.request(method, path, sent, dict(headers))
        with self._connection.getresponse() as answer:
            yield answer
        self._last = time.monotonic()

    def close(self) -> None:
        """End the connection."""
        self._connection.close()
