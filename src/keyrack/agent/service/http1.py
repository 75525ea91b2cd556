"""Just enough HTTP/1.1 (RFC 9112) for one kept-open connection to one server; it judges no answer.

It replaces http.client, which always loads ssl and email: a third of the memory that an agent needs. Anything that it
does not understand ends the connection; it knows no redirects and no compression. A proxy (proxy.py) is asked for a
tunnel (RFC 9110 section 9.3.6), which only the server can read.
"""

from __future__ import annotations

import io
import re
import select
import socket
from typing import Any, BinaryIO, Dict, List, Mapping, NamedTuple, Optional, cast

from keyrack.agent.service.proxy import Proxy
from keyrack.agent.system.processes import since_boot

_LONGEST_LINE = 16384
_MAX_HEADERS = 100
_MAX_INTERIM = 20  # interim answers (1xx)
_SLICE_SECONDS = 2.0  # so soon after it woke up, a host notices that its time is over
# An answer that has begun must keep a minimum speed: otherwise a byte now and then would keep it alive for ever.
GRACE_SECONDS = 30.0
SLOWEST = 100  # bytes per second after GRACE_SECONDS
WHOLE_SECONDS = 3600.0
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [^\r\n]*)?")


class BrokenAnswer(OSError):
    """The connection ended in the middle of an answer, or the answer is not HTTP/1.1."""


class Dropped(BrokenAnswer):
    """The connection ended before the first byte of an answer."""


class ProxyRefused(OSError):
    """The proxy was not reached, or makes no tunnel; the service itself was not asked."""


class UnusableAuthorities(OSError):
    """The file of certificate authorities cannot be used; nothing was asked."""


class Response(NamedTuple):
    """An answer; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Paced(io.RawIOBase):
    """A stream that reads from a socket, and raises socket.timeout once an answer is too slow."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.awaits(connection.gettimeout() or GRACE_SECONDS)

    def awaits(self, seconds: float) -> None:
        """Expect the next answer, with at most so many seconds of silence."""
        self._seconds = seconds
        self._received, self._began = 0, 0.0

    def readable(self) -> bool:
        """True, as io.RawIOBase wants it."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer, as io.RawIOBase.readinto. Raises socket.timeout."""
        left = self._seconds
        if self._received:
            most = min(WHOLE_SECONDS, GRACE_SECONDS + self._received / SLOWEST)
            left = min(left, self._began + most - since_boot())
            if left <= 0:
                raise socket.timeout("timed out")
        self._connection.settimeout(left)
        size = self._connection.recv_into(buffer)
        if not self._received:
            self._began = since_boot()
        self._received += size
        return size


class Connection:
    """A connection to one server; it connects when needed and stays open as long as both sides want it."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        tls: bool,
        connect_seconds: float,
        ca_file: Optional[str] = None,
        proxy: Optional[Proxy] = None,
    ) -> None:
        """ca_file: certificate authorities to trust, in place of the system's; proxy: the proxy to the server."""
        self._proxy = proxy
        self._host = host
        self._port = port
        self._tls = tls
        self._connect_seconds = connect_seconds
        self._ca_file = ca_file
        self._socket: Optional[socket.socket] = None
        self._paced: Optional[_Paced] = None
        self._stream: Optional[BinaryIO] = None
        named = f"[{host}]" if ":" in host else host
        self._place = f"{named}:{port}"
        self._authority = named if port == (443 if tls else 80) else f"{named}:{port}"

    @property
    def is_open(self) -> bool:
        """Whether an earlier exchange left a connection."""
        return self._socket is not None

    def close(self) -> None:
        """Close the connection."""
        if self._stream is not None:
            self._stream.close()
        if self._socket is not None:
            self._socket.close()
        self._stream = self._socket = None

    def exchange(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes, *, seconds: float, largest: int
    ) -> Response:
        """Send a request and read the answer, with at most `seconds` of silence and `largest` bytes of body. Once the
        answer has begun, it may take GRACE_SECONDS, one second more for each SLOWEST bytes, and WHOLE_SECONDS in all.

        Raises OSError (BrokenAnswer among them), after which the connection is closed.
        """
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self._authority}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        try:
            if self._socket is None or self._stream is None:
                self._connect()
            assert self._socket is not None
            assert self._paced is not None
            assert self._stream is not None
            self._socket.settimeout(seconds)
            end = since_boot() + seconds
            try:
                self._socket.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
            except ConnectionError as error:
                raise Dropped(error.errno, error.strerror) from None
            _wait_until(end, self._socket)
            self._paced.awaits(seconds)
            response, stays = _read(self._stream, largest)
        except BaseException:
            self.close()
            raise
        if not stays:
            self.close()
        return response

    def _connect(self) -> None:
        plain = self._reached()
        try:
            # A request is one write; the system must not delay it to collect more.
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket = self._secured(plain) if self._tls else plain
        except BaseException:
            plain.close()
            raise
        self._paced = _Paced(self._socket)
        self._stream = cast(BinaryIO, io.BufferedReader(self._paced))

    def _reached(self) -> socket.socket:
        """A connected socket to the server, through the proxy where there is one."""
        if self._proxy is None:
            return socket.create_connection((self._host, self._port), self._connect_seconds)
        try:
            plain = socket.create_connection((self._proxy.host, self._proxy.port), self._connect_seconds)
        except OSError as error:
            why = error.strerror or "it did not answer in time"
            raise ProxyRefused(None, f"the proxy {self._proxy.name} was not reached: {why}") from None
        try:
            self._ask_for_tunnel(plain, self._proxy)
        except BaseException:
            plain.close()
            raise
        return plain

    def _ask_for_tunnel(self, plain: socket.socket, proxy: Proxy) -> None:
        lines = [f"CONNECT {self._place} HTTP/1.1", f"Host: {self._place}"]
        if proxy.authorization:
            lines.append(f"Proxy-Authorization: {proxy.authorization}")
        try:
            plain.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
            # Read not one byte more than the head of the proxy's answer: what follows comes from the server.
            with _Paced(plain) as raw:
                stream = cast(BinaryIO, raw)
                match = _STATUS_LINE.fullmatch(_line(stream))
                _headers(stream)
        except OSError as error:
            words = error.strerror or "it did not answer in time"
            raise ProxyRefused(None, f"the proxy {proxy.name} makes no connection: {words}") from None
        status = 0 if match is None else int(match.group(2))
        if status // 100 != 2:
            why = "it wants a user and a password" if status == 407 else f"status {status}"
            raise ProxyRefused(None, f"the proxy {proxy.name} makes no connection to {self._place}: {why}")

    def _secured(self, plain: socket.socket) -> socket.socket:
        import ssl  # saves 15 ms and 4 MB where the service is on the same machine

        try:
            context = ssl.create_default_context(cafile=self._ca_file)
        except OSError as error:
            # OpenSSL's reasons are in capitals with underscores.
            why = getattr(error, "reason", "").replace("_", " ").lower() or error.strerror
            raise UnusableAuthorities(None, f"no certificate authority can be read in {self._ca_file}: {why}") from None
        # Python 3.13 is stricter than curl and OpenSSL, and would refuse authorities that they accept.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context.wrap_socket(plain, server_hostname=self._host)

    def unproven_date(self) -> str:
        """The Date header of a server whose certificate was not checked; empty where there is none. Only a hint for
        people. Nothing secret is sent. May raise OSError.
        """
        import ssl

        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        plain = self._reached()
        with plain, context.wrap_socket(plain, server_hostname=self._host) as secured:
            secured.sendall(
                f"HEAD / HTTP/1.1\r\nHost: {self._authority}\r\nConnection: close\r\n\r\n".encode("latin-1")
            )
            with io.BufferedReader(_Paced(secured)) as raw:
                stream = cast(BinaryIO, raw)
                _line(stream)
                return _headers(stream).get("date", "")


def _wait_until(end: float, connection: socket.socket) -> None:
    """Return once the connection is readable. A socket's own time limit does not run while the host sleeps; this one
    does, so that after a sleep the request fails soon, as its connection is long dead. end: by since_boot(). Raises
    socket.timeout.
    """
    ready = select.poll()
    ready.register(connection, select.POLLIN)
    while not ready.poll(min(max(0.0, end - since_boot()), _SLICE_SECONDS) * 1000 + 1):
        if since_boot() >= end:
            raise socket.timeout("timed out")


def _read(stream: BinaryIO, largest: int) -> "tuple[Response, bool]":
    """One answer, and whether the connection stays open after it."""
    for _ in range(_MAX_INTERIM + 1):
        try:
            line = _line(stream, Dropped)
        except ConnectionError as error:
            raise Dropped(error.errno, error.strerror) from None
        match = _STATUS_LINE.fullmatch(line)
        if match is None:
            raise BrokenAnswer(None, "the answer is not HTTP/1.1")
        status = int(match.group(2))
        headers = _headers(stream)
        if status >= 200:
            break
    else:
        raise BrokenAnswer(None, "it says again and again that an answer will come")
    stays = match.group(1) == b"1" and "close" not in headers.get("connection", "").lower()
    if status in (204, 304):
        return Response(status, headers, b""), stays
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None:
        if coding.strip().lower() != "chunked" or length is not None:
            raise BrokenAnswer(None, "the answer has an unknown transfer coding")
        return Response(status, headers, _chunks(stream, largest)), stays
    if length is None:
        body = stream.read(largest + 1)
        if len(body) > largest:
            raise BrokenAnswer(None, "the answer is too large")
        return Response(status, headers, body), False
    return Response(status, headers, _exactly(stream, _number(length, 10, largest))), stays


def _headers(stream: BinaryIO) -> Dict[str, str]:
    headers: Dict[str, str] = {}
    for _ in range(_MAX_HEADERS):
        line = _line(stream)
        if not line:
            return headers
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon or not name or name != name.strip():
            raise BrokenAnswer(None, "the answer has a broken header")
        name = name.lower()
        value = value.strip()
        if headers.setdefault(name, value) != value:
            if name in ("content-length", "transfer-encoding"):
                raise BrokenAnswer(None, "the answer has two lengths")
            headers[name] += f", {value}"
    raise BrokenAnswer(None, "the answer has too many headers")


def _chunks(stream: BinaryIO, largest: int) -> bytes:
    pieces: List[bytes] = []
    left = largest
    while True:
        size = _number(_line(stream).partition(b";")[0].strip().decode("latin-1"), 16, left)
        if size == 0:
            _headers(stream)
            return b"".join(pieces)
        pieces.append(_exactly(stream, size))
        left -= size
        if _line(stream):
            raise BrokenAnswer(None, "the answer has a broken chunk")


def _line(stream: BinaryIO, at_end: "type[BrokenAnswer]" = BrokenAnswer) -> bytes:
    line = stream.readline(_LONGEST_LINE)
    if not line:
        raise at_end(None, "the connection ended")
    if not line.endswith(b"\r\n"):
        raise BrokenAnswer(None, "the answer has a line that does not end")
    return line[:-2]


def _exactly(stream: BinaryIO, size: int) -> bytes:
    body = stream.read(size)
    if len(body) != size:
        raise BrokenAnswer(None, "the connection ended in the middle of an answer")
    return body


def _number(text: str, base: int, largest: int) -> int:
    digits = "0123456789" if base == 10 else "0123456789abcdefABCDEF"
    if not text or len(text) > 16 or text.strip(digits):
        raise BrokenAnswer(None, "the answer has a broken length")
    number = int(text, base)
    if number > largest:
        raise BrokenAnswer(None, "the answer is too large")
    return number
