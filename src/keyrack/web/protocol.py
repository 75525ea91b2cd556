"""HTTP/1.1 with bounds on time and size, which uvicorn lacks; must know no API."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Optional, Protocol, cast

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from keyrack.web import request_ids

# From the connection, or a request's first byte, until its headers are whole. Agents and SDKs need milliseconds.
HEAD_SECONDS = 8.0
# From then until its body is whole; at most a megabyte is read.
BODY_SECONDS = 10.0
# How long a client may take to make room for more of an answer, or to take its end once the connection closes.
WRITE_SECONDS = 15.0
# Also of what stands between and after the pieces of a chunked body, trailers among it.
LARGEST_HEAD = 64 * 1024
# How long what a client still sends after its answer is thrown away, so that it gets to read the answer.
LINGER_SECONDS = 20.0
LARGEST_DISCARDED = 32 * 1024 * 1024
# Requests that a client may send before the answer to the first; a packet holds thousands, each of them costs memory.
MAX_PIPELINED = 32
# A name, an address, or one in brackets, and a port (RFC 3986, 3.2.2); nothing where a target has no authority.
HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Za-z:.]+\])(?::[0-9]*)?")
# A constant: each access to a member of HTTPStatus is a call, and thousands of hosts are answered without a body.
WITHOUT_BODY = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})
WHOLE = "keyrack.whole"
"""The key of a request's WholeAnswer in its scope."""
# Warnings a minute about what is no HTTP, so that a flood of it does not flood the log.
MAX_WARNINGS = 10


class _Bounded(logging.Filter):
    """Lets a few warnings a minute through, and everything that is graver."""

    def __init__(self) -> None:
        super().__init__()
        self._minute, self._lines = 0, 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Called by the logger."""
        if record.levelno > logging.WARNING:
            return True
        minute = int(time.monotonic() / 60)
        if minute != self._minute:
            self._minute, self._lines = minute, 0
        self._lines += 1
        return self._lines <= MAX_WARNINGS


_log = logging.getLogger("uvicorn.error.http")
_log.setLevel(logging.WARNING)
_log.addFilter(_Bounded())


class HeldRequest(Protocol):
    """A request that is held."""

    def drop(self) -> None:
        """Nobody waits for its answer any more."""


class BoundedProtocol(HttpToolsProtocol):
    """Closes connections that take too long to send a request or to receive the answer, or send too much.

    An application that has a `hold` (Hold) is asked first whether it takes a request without a body that may wait long:
    then there is no task for it, until it is answered or goes on the ordinary way.
    """

    _deadline: asyncio.TimerHandle | None = None
    _parses = False
    _is_deferred = False  # whether a deadline was asked for while the parser ran, which is set once it is done
    _deferred_seconds: float | None = None
    _write_deadline: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _in_body = False
    _is_offer = False  # whether the head that the parser just read offers to go on in another protocol
    _discarded: int | None = None
    _held: HeldRequest | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called by the event loop."""
        self._wire = transport
        self.logger = _log
        super().connection_made(cast(asyncio.Transport, _ClosedByProtocol(self, transport)))
        self._close_within(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self._close_within(None)
        self._abort_within(None)
        self._discarded = self._discarded or 0
        self._drop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        if self._discarded is not None:
            self._discarded += len(data)
            if self._discarded > LARGEST_DISCARDED:
                self._wire.abort()
            return
        # Bytes that are neither whole headers nor body: the parser keeps them in memory until they make sense.
        self._head_bytes += len(data)
        if self._head_bytes > LARGEST_HEAD + len(data):
            if self._in_body:
                self._wire.abort()
            else:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The request's head is too long.")
            return
        busy = self.cycle is not None and not self.cycle.response_complete
        self._parses = True
        if self._deadline is None and not busy:
            self._close_within(HEAD_SECONDS)
        try:
            self._parse(data)
        finally:
            self._parses = False
            if self._is_deferred:
                self._is_deferred = False
                self._close_within(self._deferred_seconds)

    def _parse(self, data: bytes) -> None:
        """Have the parser read on. Nothing but HTTP/1.1 is spoken here, so that an offer of another protocol is ignored
        (RFC 9110, 7.8): the parser then passes over the body, and gets the head again without the offer.
        """
        self._unset_keepalive_if_required()
        try:
            while True:
                try:
                    self.parser.feed_data(data)
                    return
                except httptools.HttpParserUpgrade as stopped:
                    if not self._is_offer:
                        raise httptools.HttpParserError("an offer without a head") from None
                    self._is_offer = False
                    data = self._head_without_offer() + data[stopped.args[0] :]
        except httptools.HttpParserInvalidURLError:
            # Answered here: the parser passes no invalid address on, so that no API is known that could answer.
            words = (
                "An address begins with a slash, "
                "and all in it that is a blank or not ASCII is written as %XX of its UTF-8."
            )
            self.logger.warning(words)
            self.send_400_response(words)
        except httptools.HttpParserError:
            words = "Invalid HTTP request received."
            self.logger.warning(words)
            self.send_400_response(words)

    def _head_without_offer(self) -> bytes:
        line = (self.parser.get_method(), self.url, self.parser.get_http_version().encode("ascii"))
        fields = [b"%b: %b\r\n" % field for field in self.headers if field[0] != b"upgrade"]
        return b"%b %b HTTP/%b\r\n%b\r\n" % (*line, b"".join(fields))

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._refuse(HTTPStatus.BAD_REQUEST, msg)

    def _refuse(self, status: HTTPStatus, words: str) -> None:
        """Answer a request that reaches no API, and close; whatever follows it is thrown away."""
        if self.finished:
            return
        self._in_body = True
        named = [
            *self.server_state.default_headers,
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(words)).encode()),
            (b"x-request-id", request_ids.fresh().encode()),
            (b"connection", b"close"),
        ]
        head = b"".join(b"%b: %b\r\n" % header for header in named)
        self.transport.write(STATUS_LINE[status] + head + b"\r\n" + words.encode("ascii"))
        self.transport.close()

    def on_message_begin(self) -> None:
        """Called by the parser, which stops at what is raised here."""
        if len(self.pipeline) >= MAX_PIPELINED or self._held is not None:
            # Cutting is allowed (RFC 9112, 9.3.2): a client that pipelines must be ready to ask again.
            self._wire.abort()
            raise ConnectionAbortedError("too many requests wait for an answer")
        # Without its scope: most of what hosts ask is held, and needs none.
        self.url, self.headers, self.expect_100_continue = b"", [], False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser, for trailers too: dropped, or they would count as headers (RFC 9110, 6.5.1).

        The parser leaves blanks behind a value, which are no part of it (RFC 9110, 5.5).
        """
        if not self._in_body:
            super().on_header(name, value.rstrip(b" \t"))

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise ValueError("no tunnels are made here")
            self._is_offer = True
            return
        self._in_body = True
        self._head_bytes = 0
        self._close_within(BODY_SECONDS)
        if not self._is_plain():
            raise ValueError("the head reads in more than one way")
        hold: Hold | None = getattr(self.app, "hold", None)
        if hold is not None and self._may_be_held():
            self._held = hold(self)
            if self._held is not None:
                self._forget_answered()
                return
        self._go_on()

    def _forget_answered(self) -> None:
        """Keep nothing of the request before this one: of hosts that wait it is there for as long as they are."""
        self.scope = self.cycle = None  # type: ignore[assignment]  # as before the first request

    def _go_on(self, state: Mapping[str, Any] = MappingProxyType({})) -> None:
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        cast(dict[str, Any], self.scope)["state"].update(state)
        self.url, self.expect_100_continue = url, expects
        self.headers += headers  # the list that the scope has
        super().on_headers_complete()
        # That of a request which waits behind another one; a head that asks for another protocol has none.
        cast(dict[str, Any], self.scope)[WHOLE] = WholeAnswer(self.cycle)

    def _is_plain(self) -> bool:
        """Whether a head says one thing to everybody that it passes: a version that is spoken here, one host, so that
        nothing between led it elsewhere by another name (RFC 9112, 3.2), and no coding beside chunks (6.1).
        """
        version, hosts = self.parser.get_http_version(), 0
        for name, value in self.headers:
            if name == b"host":
                hosts += 1
                if HOST.fullmatch(value) is None:
                    return False
            elif name == b"transfer-encoding" and value.lower() != b"chunked":
                return False
        return version in ("1.0", "1.1") and hosts <= 1 and (hosts == 1 or version == "1.0")

    def _may_be_held(self) -> bool:
        parser = self.parser
        is_plain = parser.get_method() == b"GET" and parser.get_http_version() == "1.1" and parser.should_keep_alive()
        return is_plain and (self.cycle is None or self.cycle.response_complete) and not self.finished

    def go_on(self, state: Mapping[str, Any]) -> None:
        """Have the request that was held be answered by the application; state: what it gets to know."""
        self._held = None
        self._go_on(state)
        super().on_message_complete()

    def answer_held(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        """Answer the request that was held."""
        self._held = None
        if self.finished:
            return
        named = [*self.server_state.default_headers, *headers]
        if status not in WITHOUT_BODY:
            named.append((b"content-length", b"%d" % len(body)))
        lines = [b"%b: %b\r\n" % header for header in named]
        # At once: to keep the head for a body that is here already takes another round of the event loop.
        cast(_ClosedByProtocol, self.transport).write_whole(b"".join((STATUS_LINE[status], *lines, b"\r\n", body)))
        self.on_response_complete()

    def keep(self, task: asyncio.Task[None]) -> None:
        """Have a task of a request that is held go on until it ends, as those of other requests do."""
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def _drop(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.drop()

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        # A chunk of one byte takes six; what surrounds the pieces may not be many times what is in them.
        self._head_bytes = max(0, self._head_bytes - 9 * len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        if self._is_offer:
            return
        self._in_body = False
        self._head_bytes = 0
        self._close_within(None)
        if self._held is None:
            super().on_message_complete()

    def pause_writing(self) -> None:
        """Called by the event loop when the client takes no more."""
        self._abort_within(WRITE_SECONDS)
        super().pause_writing()

    def resume_writing(self) -> None:
        """Called by the event loop when there is room again."""
        if not self._wire.is_closing():
            self._abort_within(None)
        super().resume_writing()

    def shutdown(self) -> None:
        """Called when the service stops."""
        if self._discarded is not None:
            self._wire.abort()
        else:
            super().shutdown()

    def finish(self) -> None:
        """Close the connection. One on which the client is still sending is closed in our direction first: closed
        at once, the client's system would throw the answer away before the client has read it.
        """
        if self._discarded is not None or self._wire.is_closing():
            return
        if self._in_body:
            self._discarded = 0
            self._wire.resume_reading()
            self._close_within(LINGER_SECONDS)
            if self._wire.can_write_eof():
                self._wire.write_eof()
            return
        self._wire.close()
        self._abort_within(WRITE_SECONDS)

    @property
    def finished(self) -> bool:
        """Whether nothing more is written on this connection."""
        return self._discarded is not None or self._wire.is_closing()

    def _close_within(self, seconds: float | None) -> None:
        """Close the connection after so many seconds, in place of an earlier deadline; None: there is none any more."""
        if self._parses:
            self._is_deferred, self._deferred_seconds = True, seconds  # most requests are whole by then, and need none
            return
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if seconds is not None:
            self._deadline = self.loop.call_later(seconds, self._too_slow)

    def _abort_within(self, seconds: float | None) -> None:
        """The same for a client that takes no more of an answer, whose connection is aborted."""
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None
        if seconds is not None:
            self._write_deadline = self.loop.call_later(seconds, self._wire.abort)

    def _too_slow(self) -> None:
        self._deadline = None
        if self._discarded is not None:
            self._wire.abort()
        else:
            self._wire.close()


Hold = Callable[[BoundedProtocol], Optional[HeldRequest]]
"""Answers what holds the request whose head a connection just got, None where it goes the ordinary way."""


class WholeAnswer:
    """Writes the answer to a request, known as a whole, in one go, without ASGI's two messages."""

    __slots__ = ("_cycle",)

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle

    @property
    def can_be_written(self) -> bool:
        """Whether there is nothing to wait for and nothing special about it."""
        cycle = self._cycle
        return (
            cycle.keep_alive
            and not (cycle.response_started or cycle.disconnected or cycle.flow.write_paused)
            and cycle.scope["method"] != "HEAD"
        )

    def write(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        """Write it; headers: Content-Length among them, unless there is no body. Raises ValueError for a line's end
        within one.
        """
        cycle = self._cycle
        lines = [b"%b: %b\r\n" % header for header in (*cycle.default_headers, *headers)]
        head = b"".join(lines)
        if not (head.count(b"\n") == head.count(b"\r") == len(lines)) or b"\0" in head:
            raise ValueError("a header holds what ends it")
        cycle.response_started = cycle.response_complete = True
        cast(_ClosedByProtocol, cycle.transport).write_whole(b"".join((STATUS_LINE[status], head, b"\r\n", body)))
        cycle.message_event.set()
        cycle.on_response()


class _ClosedByProtocol:
    """A transport whose close() is the protocol's to do, and which writes an answer's head together with what follows;
    all else is the transport's own.
    """

    def __init__(self, protocol: BoundedProtocol, transport: asyncio.Transport) -> None:
        self._protocol = protocol
        self._transport = transport
        self._head: bytes | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write, unless the connection was cut off meanwhile. An answer's head is kept until its body is written, at
        most until the event loop's next round: each write is a call of the system, and wakes the client.
        """
        head = self._head
        if head is not None:
            self._head = None
            if not self.is_closing():
                self._transport.writelines((head, data) if data else (head,))
        elif data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 1"):
            self._head = data
            self._protocol.loop.call_soon(self._write_head)
        elif not self.is_closing():
            self._transport.write(data)

    def write_whole(self, data: bytes) -> None:
        """Write a whole answer."""
        self._write_head()
        if not self.is_closing():
            self._transport.write(data)

    def _write_head(self) -> None:
        head, self._head = self._head, None
        if head is not None and not self.is_closing():
            self._transport.write(head)

    def close(self) -> None:
        """Close once the answer can be read."""
        self._write_head()
        self._protocol.finish()

    def is_closing(self) -> bool:
        """Whether it is closed, or closing in our direction."""
        return self._protocol.finished
