"""Asks a service's application in this process, for tests that ask thousands of times what it answers whom; HTTP itself
and its connections are for all others: here nothing is written, sent or parsed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from typing import Any
from urllib.parse import unquote

import httpx2
import uvloop

from keyrack import app, serving
from keyrack.settings import Settings
from keyrack.web.server import Service as Application
from tests.services import Service

Headers = list[tuple[bytes, bytes]]


class Directly(httpx2.BaseTransport):
    """One application, on an event loop that runs while it is asked, in the thread that asks."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._loop = uvloop.new_event_loop()
        self._received: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self._sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._state: dict[str, Any] = {}
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": self._state}
        self._life = self._loop.create_task(application(scope, self._received.get, self._sent.put))  # type: ignore[arg-type]
        self._pass("startup")

    def call(self, method: str, path: str, token: str, body: Any = None) -> tuple[int, bytes]:
        """Status and body. token: a bearer token; body: sent as JSON unless it is None."""
        status, _, content = self._ask(method, path, *_written({"Authorization": f"Bearer {token}"}, body))
        return status, content

    def ask(self, method: str, path: str, headers: Mapping[str, str], body: Any = None) -> tuple[int, Message]:
        """Status and headers. headers: those of the request; body: sent as JSON unless it is None."""
        status, said, _ = self._ask(method, path, *_written(headers, body))
        message = Message()
        for name, value in said:
            message[name.decode("latin-1")] = value.decode("latin-1")
        return status, message

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """httpx2's way."""
        headers = [(name.lower(), value) for name, value in request.headers.raw]
        status, said, content = self._ask(request.method, request.url.raw_path.decode("ascii"), headers, request.read())
        return httpx2.Response(status, headers=said, content=content)

    def _ask(self, method: str, path: str, headers: Headers, body: bytes) -> tuple[int, Headers, bytes]:
        raw, _, query = path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(raw),
            "raw_path": raw.encode("ascii"),
            "query_string": query.encode("ascii"),
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", 40000),
            "server": ("127.0.0.1", 80),
            "state": self._state.copy(),
        }
        return self._loop.run_until_complete(self._answered(scope, body))

    async def _answered(self, scope: dict[str, Any], body: bytes) -> tuple[int, Headers, bytes]:
        sent = [{"type": "http.request", "body": body, "more_body": False}]
        messages: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return sent.pop() if sent else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            messages.append(message)

        # Each request has a context of its own, as with a server.
        await asyncio.create_task(self._application(scope, receive, send))
        start, *rest = messages
        content = b"".join(one.get("body", b"") for one in rest)
        return start["status"], list(start["headers"]), content if scope["method"] != "HEAD" else b""

    def _pass(self, moment: str) -> None:
        self._received.put_nowait({"type": f"lifespan.{moment}"})
        said = self._loop.run_until_complete(self._sent.get())
        assert said["type"] == f"lifespan.{moment}.complete", said

    def close(self) -> None:
        """Let the application end."""
        if self._loop.is_closed():
            return
        self._application.let_go()
        self._pass("shutdown")
        self._loop.run_until_complete(self._life)
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


def _written(headers: Mapping[str, str], body: Any) -> tuple[Headers, bytes]:
    """Headers and body as a client sends them."""
    named = {"Host": "127.0.0.1", **headers}
    content = b"" if body is None else json.dumps(body).encode()
    if body is not None:
        named |= {"Content-Type": "application/json", "Content-Length": str(len(content))}
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in named.items()], content


@dataclass
class DirectService(Service):
    """The same as a service that runs, asked directly. direct: for who asks thousands of times."""

    direct: Directly = field(kw_only=True, repr=False)


@contextmanager
def asked_directly(settings: Settings) -> Iterator[DirectService]:
    """An instance with these settings, with its background work, until the block ends."""
    instance = app.open_instance(settings)
    try:
        application = serving.web_application(instance)
        direct = Directly(application)
        with httpx2.Client(base_url=settings.url, transport=direct) as client:  # which closes it
            yield DirectService(settings.url, instance, client, application.let_go, direct=direct)
    finally:
        instance.database.close()
