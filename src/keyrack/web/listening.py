"""Accepts several new connections in each round of the event loop, and those of agents by slices; must decide nothing
about a call.

libuv, on which uvloop is built, accepts one connection a round from a listening socket (since 1.45). A round lasts
tens of milliseconds under load, so a client behind a thousand hosts would wait for a thousand rounds before its request
is read. So after each connection we accept the waiting ones ourselves (decision 234). A connection costs mostly the
objects that are made for it; for an agent's they are made when it is its turn.
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
"""The most connections that are accepted in one round, so that requests of open connections are served in between."""
PEEKED_BYTES = 64
"""How many bytes of a new connection's first data are peeked at, to tell agents from others."""


class AgentsApplication(Protocol):
    """An application that serves agents, too."""

    slices: Slices

    def is_agents(self, beginning: bytes) -> bool:
        """Whether a connection's first bytes are the beginning of an agent's request."""


class ListeningServer(uvicorn.Server):
    """uvicorn's server, which accepts more connections after each one. application: what it serves, None if that serves
    no agents.
    """

    _accepting = False

    def __init__(self, config: uvicorn.Config, application: AgentsApplication | None = None) -> None:
        super().__init__(config)
        self._application = application

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Called when the event loop runs; sockets: those that listen already."""
        self._loop = asyncio.get_running_loop()
        self._own: list[socket.socket] = []
        self._delayed: set[socket.socket] = set()
        self._connecting: set[asyncio.Task[Any]] = set()
        self._protocol = self.config.http_protocol_class
        self.config.http_protocol_class = self._make_protocol  # type: ignore[assignment]
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

    def _make_protocol(self, **given: Any) -> asyncio.Protocol:
        """The protocol of a new connection; given: uvicorn's arguments for it."""
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
                    break  # no connection waits, or no descriptor is free, which libuv notices as well
                connection.setblocking(False)
                if self._application is None or not self._application.is_agents(_brought(connection)):
                    self._connect(connection, given)
                    continue
                self._delayed.add(connection)
                self._application.slices.begin(network(address[0]), partial(self._connect_delayed, connection, given))
                self._accept_soon(given)

    def _connect_delayed(self, connection: socket.socket, given: dict[str, Any]) -> None:
        if connection in self._delayed:  # not after shutdown()
            self._delayed.remove(connection)
            self._connect(connection, given)

    def _connect(self, connection: socket.socket, given: dict[str, Any]) -> None:
        made = self._loop.connect_accepted_socket(partial(self._make_protocol, **given), connection)
        task = self._loop.create_task(made)
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)


def _brought(connection: socket.socket) -> bytes:
    """The first bytes that a connection has received; they stay in the socket."""
    try:
        return connection.recv(PEEKED_BYTES, socket.MSG_PEEK)
    except OSError:  # nothing yet, or it is closed, which shows when it is read
        return b""
