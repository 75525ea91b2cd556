"""HTTP without TLS for tests: httpx2 would read all authorities that the system trusts each time; checks nothing."""

from __future__ import annotations

import http.client
import json
import ssl
import time
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
        if time.monotonic() - self._last > _IDLE_SECONDS:
            self._connection.close()
        headers, sent = {"Authorization": f"Bearer {token}"}, None
        if body is not None:
            sent = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        self._connection.request(method, path, sent, headers)
        with self._connection.getresponse() as answer:
            said = answer.read()
        self._last = time.monotonic()
        return answer.status, said

    def close(self) -> None:
        """End the connection."""
        self._connection.close()
