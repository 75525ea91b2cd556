"""GET and POST of URLs that users name, bounded in time and size, to allowed addresses alone; must follow no redirect.

The name is looked up once, and the connection goes to the very address that was checked.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from threading import Event, Timer
from urllib.parse import urlsplit

from keyrack import __version__
from keyrack.core import resolving
from keyrack.core.keys.key_sync import HttpAnswer, NoHttpAnswer
from keyrack.core.private_addresses import is_public, is_within
from keyrack.settings import Settings

TIMEOUT_SECONDS = 10.0
"""How long connecting, or a single read or write, may take."""
WHOLE_SECONDS = 20.0
"""How long the whole request may take, once connected."""
MAX_BYTES = 262_144
"""The longest body of an answer."""


class Outgoing:
    """Sends requests to URLs that users named; to private addresses only in the networks that a setting names.

    setting: the name of that setting.
    """

    def __init__(self, settings: Settings, setting: str = "key_source_networks") -> None:
        self._networks = settings.networks(setting)
        self._setting = setting

    def __call__(self, url: str, headers: Mapping[str, str]) -> HttpAnswer:
        """GET a URL. Raises NoHttpAnswer with words for people; an answer of any status is returned."""
        return self._answer("GET", url, headers, None)

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> HttpAnswer:
        """POST a body to a URL; otherwise as GET."""
        return self._answer("POST", url, headers, body)

    def _answer(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> HttpAnswer:
        try:
            return self._ask(method, url, headers, body)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NoHttpAnswer(f"{urlsplit(url).hostname}: {_why(error)}") from None

    def _ask(self, method: str, url: str, headers: Mapping[str, str], sent_body: bytes | None) -> HttpAnswer:
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        host, port = parts.hostname or "", parts.port or (443 if secure else 80)
        address = self._address(host, port, secure=secure)
        connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
        raw = socket.create_connection((address, port), TIMEOUT_SECONDS)
        sock = raw if not secure else _with_tls(raw, host)
        # A server that sends a byte now and then never exceeds a read's timeout, so a timer ends the whole request.
        over = Event()
        late = Timer(WHOLE_SECONDS, _end, (sock, over))
        late.daemon = True
        late.start()
        try:
            if isinstance(sock, ssl.SSLSocket):
                sock.do_handshake()
            connection.sock = sock
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            sent = {"User-Agent": f"keyrack/{__version__}", "Accept": "*/*", **headers}
            connection.request(method, path, body=sent_body, headers=sent)
            response = connection.getresponse()
            ends = response.length is not None or response.chunked
            body = _body(response)
            named = {name.lower(): value for name, value in response.getheaders()}
            if over.is_set():  # what looks like the end may be the timer's
                raise _late()
            if method == "GET" and not ends:
                # http.client takes the end of a connection for the end of the head. A connection that broke before
                # Content-Length would count as an empty body, and so as an account without keys.
                raise NoHttpAnswer("The answer does not say how long it is, and so may have been cut.")
            return HttpAnswer(response.status, named | {"x-now": str(int(time.time()))}, body)
        except (OSError, http.client.HTTPException, ValueError):
            if over.is_set():
                raise _late() from None
            raise
        finally:
            late.cancel()
            connection.close()
            sock.close()

    def _address(self, host: str, port: int, *, secure: bool) -> str:
        """The address to connect to. Raises NoHttpAnswer unless every address of the name is allowed."""
        try:
            addresses = [address for _, (address, _) in resolving.addresses(host, port, socket.SOCK_STREAM)]
        except TimeoutError as late:
            raise NoHttpAnswer(f"{host}: {late}") from None
        for text in addresses:
            inside = is_within(text, self._networks)
            if not inside and not is_public(text):
                raise NoHttpAnswer(f"{host} is at the private address {text}; {self._setting} would allow it.")
            if not inside and not secure:
                raise NoHttpAnswer(f"{host} is asked over https alone.")
        return addresses[0]


def _why(error: Exception) -> str:
    """What went wrong, in words for people."""
    if isinstance(error, socket.gaierror):
        return "its name was not found"
    if isinstance(error, TimeoutError):
        return f"it did not answer within {TIMEOUT_SECONDS:.0f} seconds"
    # The message may quote what the other side sent.
    said = "".join(one if one.isprintable() else "?" for one in str(error)[:200])
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message or said}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed with it: {said}"
    if isinstance(error, http.client.HTTPException):
        return f"what it answered is no HTTP: {said or type(error).__name__}"
    if isinstance(error, OSError):
        return f"it was not reached: {error.strerror or said or type(error).__name__}"
    return said or type(error).__name__


def _with_tls(raw: socket.socket, host: str) -> ssl.SSLSocket:
    # A new context each time, so that certificates that were installed meanwhile count.
    context = ssl.create_default_context()
    return context.wrap_socket(raw, server_hostname=host, do_handshake_on_connect=False)


def _end(sock: socket.socket, over: Event) -> None:
    """End the connection while another thread reads or writes it; over: set, as the time is over."""
    over.set()
    with suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not TLS's own, which waits for the other side


def _late() -> NoHttpAnswer:
    return NoHttpAnswer(f"The answer took longer than {WHOLE_SECONDS:.0f} seconds.")


def _body(response: http.client.HTTPResponse) -> bytes:
    """The whole body. Raises NoHttpAnswer for one that is too long or cut."""
    announced = response.length
    parts: list[bytes] = []
    size = 0
    while part := response.read1(65_536):
        size += len(part)
        parts.append(part)
        if size > MAX_BYTES:
            raise NoHttpAnswer(f"The answer is longer than {MAX_BYTES} bytes.")
    if announced is not None and size < announced:
        raise NoHttpAnswer("The answer was cut.")
    return b"".join(parts)
