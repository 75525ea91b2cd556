"""Takes several new connections in each round of the event loop, and those of agents by slices; must decide nothing
about a call.

libuv, on which uvloop is built, takes one a round from a socket that listens (since 1.45). A round lasts tens of
milliseconds while many are served, so a client behind a thousand hosts would wait for a thousand rounds before its
request is read. So after each connection we accept ourselves those that wait (decision 234). What a connection
costs is mostly the objects around it; for an agent's question they are made once it is its turn.
"""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import Any, Protocol

import uvicorn

from keyrack.core.people.throttle import network
from keyrack.web.slices import Slices

ACCEPTS_PER_ROUND = 256
"""The most connections that are accepted in one round, so that those who are connected are served in between."""
PEEKED_BYTES = 64
"""How many bytes of what a connection has brought are read ahead, to tell agents from others."""


class AgentsApplication(Protocol):
    """An application that agents ask, too."""

    slices: Slices

    def is_agents(self, beginning: bytes) -> bool:
        """Whether what a connection brought begins as an agent's question does."""


class ListeningServer(uvicorn.Server):
    """uvicorn's server, which accepts more connections after each that came. application: what it serves, if agents ask
    it too.
    """

    _accepting = False

    def __init__(self, config: uvicorn.Config, application: AgentsApplication | None = None) -> None:
        super().__init__(config)
        self._application = application

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Called once the event loop runs; sockets: that listen already."""
        self._loop = asyncio.get_running_loop()
        self._own: list[socket.socket] = []
        self._delayed: set[socket.socket] = set()
        self._connecting: set[asyncio.Task[Any]] = set()
        self._protocol = self.config.http_protocol_class
        self.config.http_protocol_class = self._came  # type: ignore[assignment]
        await super().startup(sockets)
        for one in [one for server in self.servers for one in server.sockets]:
            own = socket.socket(fileno=socket.dup(one.fileno()))
            own.setblocking(False)
            self._own.append(own)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Called when the service stops."""
        for own in (*self._own, *self._delayed):
            own.close()
        self._own.clear()
        self._delayed.clear()
        await super().shutdown(sockets)

    def _came(self, **given: Any) -> asyncio.Protocol:
        """The protocol of a new connection; given: as uvicorn gives it."""
        self._accept_soon(given)
        return self._protocol(**given)

    def _accept_soon(self, given: dict[str, Any]) -> None:
        if not self._accepting:
            self._accepting = True
            self._loop.call_soon(self._accept, given)

    def _accept(self, given: dict[str, Any]) -> None:
        self._accepting = False
        for own in self._own:
            for _ in range(ACCEPTS_PER_ROUND):
                try:
                    connection, address = own.accept()
                except OSError:
                    break  # none waits, or there is no room for one, which libuv notices as well
                connection.setblocking(False)
                if self._application is None or not self._application.is_agents(_brought(connection)):
                    self._connect(connection, given)
                    continue
                self._delayed.add(connection)
                self._application.slices.begin(network(address[0]), partial(self._connect_delayed, connection, given))
                self._accept_soon(given)

    def _connect_delayed(self, connection: socket.socket, given: dict[str, Any]) -> None:
        if connection in self._delayed:  # else the service stops
            self._delayed.remove(connection)
            self._connect(connection, given)

    def _connect(self, connection: socket.socket, given: dict[str, Any]) -> None:
        made = self._loop.connect_accepted_socket(partial(self._came, **given), connection)
        task = self._loop.create_task(made)
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)


def _brought(connection: socket.socket) -> bytes:
    """The beginning of what a connection has brought, which stays there to be read."""
    try:
        return connection.recv(PEEKED_BYTES, socket.MSG_PEEK)
    except OSError:  # nothing yet, or it is gone, which shows when it is read
        return b""
