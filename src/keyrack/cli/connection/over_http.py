"""A command's calls over HTTP, with the standard library alone; must follow nothing elsewhere, and show no token."""

from __future__ import annotations

import http.client
import ipaddress
import json
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Self, TextIO
from urllib.parse import urlencode, urlsplit

import click

from keyrack import __version__
from keyrack.cli.connection import logins
from keyrack.cli.connection.transport import CallRefused, Calls, naming, texts
from keyrack.cli.output.ends import Unreachable
from keyrack.cli.output.shown import say

BASE = "/api/keyrack/v1"
CONNECT_SECONDS = 10.0
SECONDS = 120.0
WHOLE_SECONDS = 900.0
"""For a call with its whole answer: one that comes byte by byte never reaches SECONDS."""
MAX_BYTES = 256 * 1024 * 1024
QUIET_SECONDS = 2.0
LONGEST_PAUSE = 60
TRIES = 3
AWAY = (502, 503, 504)


WITH_BODY = (200, 201, 202)
"""Statuses whose answers are never empty."""
MAYBE = " What you asked for may have been done; check before you repeat it."


class _Answer(dict[str, Any]):
    """What a service answered. Unknown fields are ignored; to ask for one that is not there raises Unreachable."""

    def __init__(self, fields: dict[str, Any], words: str) -> None:
        super().__init__(fields)
        self._words = words

    def __missing__(self, name: str) -> Any:
        raise Unreachable(f"The answer lacks {name}. {self._words}")


class OverHttp(Calls):
    """Calls of one service with one token, over one connection."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._parts = urlsplit(check(url))
        self._token = token
        self._date: datetime | None = None
        self._connection: http.client.HTTPConnection | None = None

    def ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, query: Mapping[str, Any] | None = None
    ) -> Any:
        """The same call, as Calls.ask has it."""
        asked = texts(query)
        target = self._parts.path + BASE + path + ("?" + urlencode(asked) if asked else "")
        for left in range(TRIES - 1, -1, -1):
            status, headers, content = self._send(method, target, body)
            pause = headers.get("Retry-After", "")
            if status != 429 or not left or not pause.isdigit() or int(pause) > LONGEST_PAUSE:
                break
            say(f"The service asks to wait {pause} s.", err=True)
            time.sleep(int(pause))
        return self._answer(method, status, content)

    def now(self) -> datetime:
        """The time by the service's clock, in UTC."""
        if self._date is None:
            self._send("HEAD", self._parts.path + BASE + "/people/me", None)
        return self._date or datetime.now(UTC)

    def _send(
        self, method: str, target: str, body: Mapping[str, Any] | None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        content = None if body is None else json.dumps(body).encode()
        headers = {
            "Authorization": f"Bearer {self._token}",
            "User-Agent": f"keyrack/{__version__}",
            "Accept": "application/json",
        }
        if content is not None:
            headers["Content-Type"] = "application/json"
        sent = False
        try:
            with _still_working(self._url):
                connection = self._connected()
                with _no_longer_than(WHOLE_SECONDS, connection.sock):
                    sent = True
                    connection.request(method, target, content, headers)
                    response = connection.getresponse()
                    announced = response.length or 0
                    answered = response.read(MAX_BYTES + 1)
            if len(answered) > MAX_BYTES:
                raise ValueError(f"its answer is longer than {MAX_BYTES} bytes")
            if len(answered) < announced:
                raise http.client.IncompleteRead(answered)
            if method != "HEAD" and not answered and response.status in WITH_BODY:
                # http.client takes the end of a connection for the end of a head, as if there were no body.
                raise http.client.IncompleteRead(answered)
            date = response.headers.get("Date")
            self._date = parsedate_to_datetime(date) if date else self._date
        except ssl.SSLCertVerificationError as error:
            self._drop()
            why = error.verify_message.rstrip(".")
            raise Unreachable(f"The certificate of {self._url} is not accepted: {why}. Nothing was asked.") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._drop()
            words = f"{self._url} gives no answer: {_why(error)}."
            raise Unreachable(words + (MAYBE if sent and method != "GET" else "")) from None
        if response.will_close:
            self._drop()
        return response.status, response.headers, answered

    def _answer(self, method: str, status: int, content: bytes) -> Any:
        maybe = MAYBE if method != "GET" else ""
        words = f"The service at {self._url} may be older than this command ({__version__}).{maybe}"
        try:
            decoded = json.loads(content, object_hook=lambda found: _Answer(found, words)) if content else None
        except (ValueError, RecursionError):
            decoded = ()
        if 200 <= status < 300:
            if content and not isinstance(decoded, dict):
                raise Unreachable(f"{self._url} does not answer like Keyrack.{maybe}")
            return decoded
        error = decoded.get("error") if isinstance(decoded, dict) else None
        error = error if isinstance(error, dict) else {}
        words = str(error.get("message") or f"{self._url} answers with status {status}; is it a Keyrack service?")
        if status in AWAY or not error:
            raise Unreachable(words)
        if error.get("code") == "path-unknown":
            words = f"The service at {self._url} has no such call; it may be older than this command ({__version__})"
            words += f", or its address ends before {self._parts.path}." if self._parts.path else "."
        if status == 401:
            named = logins.from_environment() is not None
            words += " It is KEYRACK_TOKEN's: set another." if named else f" Log in again: keyrack login {self._url}"
        raise CallRefused(status, str(error.get("code", "")), naming(words, error.get("field")))

    def _connected(self) -> http.client.HTTPConnection:
        if self._connection is None:
            host, port = self._parts.hostname or "", self._parts.port
            if self._parts.scheme == "https":
                context = ssl.create_default_context()
                self._connection = http.client.HTTPSConnection(host, port, timeout=CONNECT_SECONDS, context=context)
            else:
                self._connection = http.client.HTTPConnection(host, port, timeout=CONNECT_SECONDS)
            self._connection.connect()
            self._connection.sock.settimeout(SECONDS)
        return self._connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def check(url: str) -> str:
    """An address that a token may be sent to: https, or http on this machine. Exits with words for any other."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        parts, host = urlsplit(""), ""
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment or parts.username:
        raise click.UsageError("An address is written like https://keyrack.example.org.")
    if parts.scheme == "http" and not _is_here(host):
        raise click.UsageError("Over http everybody on the way reads the token; write https://.")
    return url.rstrip("/")


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _why(error: Exception) -> str:
    if isinstance(error, http.client.IncompleteRead):
        return "its answer broke off"
    if isinstance(error, TimeoutError):
        return "it took too long"
    if isinstance(error, ssl.SSLError) and error.reason:
        return f"TLS failed ({error.reason.replace('_', ' ').lower()}); does it speak https there?"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


@contextmanager
def _no_longer_than(seconds: float, connection: socket.socket) -> Iterator[None]:
    """End the connection after so many seconds. Raises TimeoutError then, whatever error that caused."""
    over = threading.Event()

    def end() -> None:
        over.set()
        with suppress(OSError):
            socket.socket.shutdown(connection, socket.SHUT_RDWR)  # not TLS's own, which waits for the other side

    late = threading.Timer(seconds, end)
    late.daemon = True
    late.start()
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError):
        if over.is_set():
            raise TimeoutError from None
        raise
    finally:
        late.cancel()
    if over.is_set():  # the block may have ended only because the connection was ended
        raise TimeoutError


@contextmanager
def _still_working(url: str) -> Iterator[None]:
    """Show on a terminal how long a call has taken, and clear that at its end."""
    stream: TextIO = sys.stderr
    if not stream.isatty():
        yield
        return
    done = threading.Event()

    def tell() -> None:
        began = time.monotonic()
        while not done.wait(QUIET_SECONDS):
            stream.write(f"\rwaiting for {urlsplit(url).hostname}: {time.monotonic() - began:.0f} s ")
            stream.flush()

    thread = threading.Thread(target=tell, daemon=True)
    began = time.monotonic()
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        if time.monotonic() - began > QUIET_SECONDS:
            stream.write("\r\x1b[K")
            stream.flush()
