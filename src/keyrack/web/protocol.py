"""HTTP/1.1 with bounds on time and size, which uvicorn lacks; must know nothing of what is asked."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# From the connection, or a request's first byte, until its headers are whole. Agents and SDKs need milliseconds.
HEAD_SECONDS = 8.0
# From then until its body is whole; at most a megabyte is read.
BODY_SECONDS = 10.0
LARGEST_HEAD = 64 * 1024


class BoundedProtocol(HttpToolsProtocol):
    """Closes connections that take too long to say what they want, or say too much of it."""

    _deadline: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _in_body = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called by the event loop."""
        super().connection_made(transport)
        self._within(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self._within(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        busy = self.cycle is not None and not self.cycle.response_complete
        if self._deadline is None and not busy:
            self._within(HEAD_SECONDS)
        if not self._in_body:
            self._head_bytes += len(data)
            if self._head_bytes > LARGEST_HEAD + len(data):
                self.send_400_response("The request's head is too long.")
                return
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self._in_body = True
        self._within(BODY_SECONDS)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self._in_body = False
        self._head_bytes = 0
        self._within(None)
        super().on_message_complete()

    def _within(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if seconds is not None:
            self._deadline = self.loop.call_later(seconds, self._too_slow)

    def _too_slow(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            self.transport.close()
