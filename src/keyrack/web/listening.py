"""Takes several new connections in each round of the event loop; must know nothing of what is asked.

libuv, on which uvloop is built, takes one a round from a socket that listens (since 1.45). A round lasts tens of
milliseconds while many are served, so who came behind a thousand hosts would wait for a thousand rounds before a word
of theirs is read. So after each connection we look ourselves whether more wait (decision 234).
"""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import Any

import uvicorn

AT_ONCE = 256
"""Connections in a round, so that those who are connected are served meanwhile."""


class ListeningServer(uvicorn.Server):
    """uvicorn's server, which looks for more connections after each that came."""

    _looks = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Called once the event loop runs; sockets: that listen already."""
        self._loop = asyncio.get_running_loop()
        self._own: list[socket.socket] = []
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
        for own in self._own:
            own.close()
        self._own.clear()
        await super().shutdown(sockets)

    def _came(self, **given: Any) -> asyncio.Protocol:
        """The protocol of a new connection; given: as uvicorn gives it."""
        if not self._looks:
            self._looks = True
            self._loop.call_soon(self._look, given)
        return self._protocol(**given)

    def _look(self, given: dict[str, Any]) -> None:
        self._looks = False
        for own in self._own:
            for _ in range(AT_ONCE):
                try:
                    connection, _address = own.accept()
                except OSError:
                    break  # none waits, or there is no room for one, which libuv sees as well
                connection.setblocking(False)
                made = self._loop.connect_accepted_socket(partial(self._came, **given), connection)
                task = self._loop.create_task(made)
                self._connecting.add(task)
                task.add_done_callback(self._connecting.discard)
