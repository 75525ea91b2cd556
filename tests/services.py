"""A real service on a real port for tests, and people and servers to try it with."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import uvicorn

from keyrack import app, serving
from keyrack.core.instance import Instance
from keyrack.core.workspace import apply as workspace_apply
from keyrack.settings import Settings
from keyrack.web.protocol import BoundedProtocol
from tests.plain_http import PLAIN
from tests.ports import free_port as free_port

TEAM = """
[workspace]
name = "acme"
[[projects]]
name = "cn-north-4"
id = "aa2d97d7e62c4b7da3ffdfc11551f878"
[[users]]
name = "olga"
role = "owner"
password = "olga's password"
tokens = [{ name = "root", token = "token-of-olga", scopes = ["*"] }]
[[users]]
name = "alice"
role = "member"
password = "alice's password"
policies = ["codeartsrepo::*"]
tokens = [{ name = "laptop", token = "token-of-alice", scopes = ["*"] }]
[[users]]
name = "bob"
role = "member"
password = "bob's password"
policies = ["codeartsrepo::*"]
tokens = [{ name = "laptop", token = "token-of-bob", scopes = ["*"] }]
[[users]]
name = "mallory"
role = "member"
password = "mallory's password"
tokens = [{ name = "laptop", token = "token-of-mallory", scopes = ["*"] }]
[[users]]
name = "audrey"
role = "auditor"
password = "audrey's password"
tokens = [{ name = "laptop", token = "token-of-audrey", scopes = ["*"] }]
[[servers]]
name = "web-1"
address = "192.0.2.10"
system_users = ["deploy"]
tags = ["web"]
"""

STRANGERS = """
[workspace]
name = "umbrella"
[[users]]
name = "victor"
role = "owner"
password = "victor's password"
tokens = [{ name = "root", token = "token-of-victor", scopes = ["*"] }]
[[servers]]
name = "lab-1"
address = "198.51.100.7"
system_users = ["deploy"]
"""


@dataclass
class Service:
    """A running service: its address, its instance, and a client without any credentials."""

    url: str
    instance: Instance
    client: httpx2.Client = field(repr=False)
    let_go: Callable[[], None] = field(repr=False, default=lambda: None)

    def call(
        self, method: str, path: str, *, token: str | None = None, json: Any = None, **more: Any
    ) -> httpx2.Response:
        """One request; token: a bearer token for RunCloud's API."""
        headers = dict(more.pop("headers", {}))
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        if json is not None:
            more["json"] = json
        return self.client.request(method, path, headers=headers, **more)

    def apply(self, text: str, environment: Mapping[str, str] | None = None) -> list[str]:
        """Bring a workspace to what a TOML text says."""
        return workspace_apply.apply(self.instance, text, environment or {})


class _Server(uvicorn.Server):
    """uvicorn's server, which says when it serves, and stops when it is asked to: it else polls ten times a second
    whether it was, and then waits once more. Most tests take less.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._serves = threading.Event()
        self._told = asyncio.Event()

    def starts(self, thread: threading.Thread) -> bool:
        """Wait until it serves; False where it does not, or the thread that runs it ended."""
        deadline = time.monotonic() + 20
        while not self._serves.wait(0.2) and thread.is_alive() and time.monotonic() < deadline:
            pass
        return self._serves.is_set()

    def stop(self) -> None:
        """From another thread than the one that runs it."""
        self.should_exit = True
        if self._serves.is_set():
            self._loop.call_soon_threadsafe(self._told.set)

    async def main_loop(self) -> None:
        """Once it serves, until it is asked to stop."""
        self._loop = asyncio.get_running_loop()
        self._serves.set()
        second = 0
        while not await self.on_tick(10 * second):  # by tens it writes the second into its headers
            with suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), 1)
            second += 1

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Without uvicorn's wait of a tenth of a second for connections that nobody has."""
        if self.server_state.connections or self.server_state.tasks:
            await super().shutdown(sockets)
            return
        for server in self.servers:
            server.close()
            await server.wait_closed()
        await self.lifespan.shutdown()


@contextmanager
def running(settings: Settings) -> Iterator[Service]:
    """Serve an instance with these settings from a thread of this process, until the block ends."""
    instance = app.open_instance(settings)
    host, port = settings.host_and_port
    application = serving.web_application(instance)
    config = uvicorn.Config(
        application,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        http=BoundedProtocol,
        proxy_headers=False,
        timeout_graceful_shutdown=2,
    )
    server = _Server(config)
    thread = threading.Thread(target=server.run, name="service")
    thread.start()
    try:
        assert server.starts(thread), "the service did not start"
        with httpx2.Client(base_url=settings.url, timeout=30, verify=PLAIN) as client:
            yield Service(settings.url, instance, client, application.let_go)
    finally:
        application.let_go()
        server.stop()
        thread.join(30)
        instance.database.close()


def settings_for(folder: Path, database_url: str, **more: Any) -> Settings:
    """Settings of a test's own instance on a free port."""
    return Settings(data=folder, database=database_url, listen=f"127.0.0.1:{free_port()}", **more)
