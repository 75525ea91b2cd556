"""Asks the service over one kept-open connection, and tells an answer from none; must not judge what it answers."""

from __future__ import annotations

import calendar
import json
import os
import re
import socket
import time
import zlib
from typing import Any, Dict, Mapping, NamedTuple, Optional
from urllib.parse import urlsplit

from keyrack import __version__
from keyrack.agent.service import proxy as proxies
from keyrack.agent.service.http1 import Connection, Dropped, ProxyRefused, UnusableAuthorities
from keyrack.agent.system.identity import HEADER, Identity
from keyrack.protocol import host_document

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 15.0  # beyond the time that the service was asked to wait

# A document is ASCII, of which JSON text writes a character as two at most. What is taken at all stands in memory.
_LARGEST_ANSWER = 2 * host_document.MAX_CHARACTERS + 65536
# What stands outside an answer's texts is a few names and brackets. Of JSON without such a bound a value of three bytes
# takes 72 in memory, and the signature within comes too late for that.
_MOST_OUTSIDE_TEXTS = 65536
_AWAY = (502, 503, 504)
# OpenSSL's X509_V_ERR_…
_NOT_YET_VALID, _EXPIRED, _UNKNOWN_ISSUER = 9, 10, (2, 18, 19, 20, 21)
_CLOCK_SECONDS = 60.0
_LONGEST_PAUSE = 3600
_LOOPBACK = re.compile(r"localhost|127(\.[0-9]{1,3}){3}|::1", re.IGNORECASE)


class NoAnswer(Exception):
    """The service was not reached, or what came back is not its answer: it has said neither yes nor no."""


class AddressProblem(ValueError):
    """A URL that cannot be the service's; the words say what one is like."""


class ServiceAnswer(NamedTuple):
    """The service's answer. status: of HTTP; fields: the JSON object, empty where there was none; date: the Date
    header; retry_after: seconds until it wants to be asked again, 0 where it does not say.
    """

    status: int
    fields: Mapping[str, Any]
    date: str = ""
    retry_after: int = 0

    @property
    def words(self) -> str:
        """Why it refused, in its own words, safe to print."""
        said = self.fields.get("error")
        if isinstance(said, Mapping):
            said = said.get("message")
        text = said if isinstance(said, str) else f"status {self.status}"
        return "".join(character if character.isprintable() else " " for character in text)[:300]


class Sender(NamedTuple):
    """The identity that asks, and its lane (identity.py)."""

    identity: Identity
    lane: str


class ServiceClient:
    """The service at a URL such as https://keys.example.org. secret: this host's own, None before enrolment."""

    def __init__(
        self,
        url: str,
        secret: Optional[str] = None,
        *,
        plain_http: bool = False,
        ca_file: Optional[str] = None,
        sender: Optional[Sender] = None,
        proxy: Optional[str] = None,
    ) -> None:
        """plain_http: allow http:// over a network, where everybody can read the secret; ca_file: certificate
        authorities to trust, in place of the system's; sender: who asks, sent with each request where given;
        proxy: the setting of proxy.find().

        Raises AddressProblem.
        """
        self._sender = sender
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise AddressProblem(f"{url!r} is not an address like https://keys.example.org") from None
        if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment or parts.username:
            raise AddressProblem(f"{url!r} is not an address like https://keys.example.org")
        if parts.scheme == "http" and not plain_http and not _LOOPBACK.fullmatch(host):
            raise AddressProblem(
                f"{url} sends this host's secret over the network for everybody to read; "
                "use https://, or --plain-http where the network itself is private"
            )
        try:
            way_out = proxies.find(url, proxy, os.environ)
        except proxies.ProxyProblem as problem:
            raise AddressProblem(str(problem)) from None
        self._prefix = parts.path.rstrip("/")
        self._headers: Dict[str, str] = {
            "User-Agent": f"keyrack-agent/{__version__}",
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
            "Content-Type": "application/json",
        }
        if secret is not None:
            self._headers["Authorization"] = f"Bearer {secret}"
        tls = parts.scheme == "https"
        self._connection = Connection(
            host,
            port or (443 if tls else 80),
            tls=tls,
            connect_seconds=CONNECT_SECONDS,
            ca_file=ca_file,
            proxy=way_out,
        )

    def get(self, path: str, *, wait: float = 0.0) -> ServiceAnswer:
        """Send a GET. wait: seconds for which the service may hold the request. Raises NoAnswer."""
        return self._ask("GET", path, b"", wait)

    def post(self, path: str, fields: Mapping[str, Any]) -> ServiceAnswer:
        """Send a POST with JSON. Raises NoAnswer, after which the service may have received it or not."""
        return self._ask("POST", path, json.dumps(fields).encode("ascii"), 0.0)

    def close(self) -> None:
        """Close the connection; the next request connects again."""
        self._connection.close()

    def _ask(self, method: str, path: str, body: bytes, wait: float) -> ServiceAnswer:
        answer = self._answer(method, path, body, wait)
        if answer.status == 409 and answer.fields.get("tell") == "run" and self._sender is not None:
            self._sender.identity.renew()
            answer = self._answer(method, path, body, wait)
        return answer

    def _answer(self, method: str, path: str, body: bytes, wait: float) -> ServiceAnswer:
        was_open = self._connection.is_open
        try:
            try:
                return self._exchange(method, path, body, wait)
            except Dropped:
                # The service may close an idle connection just as it is used: try once on a new one.
                if not was_open:
                    raise
                return self._exchange(method, path, body, wait)
        except (OSError, ValueError) as error:
            self.close()
            raise NoAnswer(self._certificate_words(error) or _words(error)) from None

    def _certificate_words(self, error: Exception) -> str:
        """Words for a refused certificate, which may be good if this host's clock is wrong. Empty for other errors."""
        code = getattr(error, "verify_code", None)
        if code is None:
            return ""
        said = str(getattr(error, "verify_message", "")) or "it is not trusted"
        if code not in (_NOT_YET_VALID, _EXPIRED):
            hint = "; a private authority is named with --ca-file" if code in _UNKNOWN_ISSUER else ""
            return f"its certificate is refused: {said}{hint}"
        now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        words = f"its certificate is refused: {said}, by this host's clock, which says {now}"
        try:
            seconds = seconds_ahead(self._connection.unproven_date())
        except (OSError, ValueError):
            seconds = None
        if seconds is None or abs(seconds) < _CLOCK_SECONDS:
            return words
        way = "ahead of" if seconds > 0 else "behind"
        return f"{words} and is {abs(seconds):.0f} seconds {way} the service's: set it right (timedatectl set-ntp true)"

    def _exchange(self, method: str, path: str, body: bytes, wait: float) -> ServiceAnswer:
        headers = self._headers
        if self._sender is not None:
            headers = {**headers, HEADER: self._sender.identity.header(self._sender.lane)}
        response = self._connection.exchange(
            method, self._prefix + path, headers, body, seconds=wait + ANSWER_SECONDS, largest=_LARGEST_ANSWER
        )
        date = response.headers.get("date", "")
        retry_after = _seconds(response.headers.get("retry-after", ""))
        if not response.body:
            return ServiceAnswer(response.status, {}, date, retry_after)
        body = response.body
        if response.headers.get("content-encoding", "").strip().lower() == "gzip":
            body = _unpacked(body)
        try:
            fields = None if _is_crowded(body) else json.loads(body)
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict):
            if response.status == 413:
                # From the service or a proxy: a smaller request may get through.
                return ServiceAnswer(response.status, {"error": "a proxy takes none of this size (413)"}, date)
            if response.status in _AWAY:
                # The connection stays: ten thousand hosts that ask again would else each shake hands for TLS.
                raise NoAnswer(f"status {response.status} in no words of Keyrack's: a proxy, whose service is away?")
            # A proxy's page or a captive portal: not the service.
            raise ValueError(f"something that is not Keyrack answered with status {response.status}")
        return ServiceAnswer(response.status, fields, date, retry_after)


def _unpacked(body: bytes) -> bytes:
    """Unpack gzip (RFC 1952), up to _LARGEST_ANSWER bytes. Raises ValueError."""
    unpack = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        data = unpack.decompress(body, _LARGEST_ANSWER + 1)
    except zlib.error:
        raise ValueError("what came packed cannot be unpacked") from None
    if len(data) > _LARGEST_ANSWER:
        raise ValueError("the answer is too large")
    if not unpack.eof or unpack.unused_data:
        raise ValueError("what came packed is not whole")
    return data


def _is_crowded(body: bytes) -> bool:
    """Whether JSON has more outside its texts than any answer of the service: it would take many times its size."""
    if len(body) <= _MOST_OUTSIDE_TEXTS:
        return False
    # Without what is escaped, each quote begins or ends a text.
    bare = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    if bare.count(b'"') > _MOST_OUTSIDE_TEXTS:
        return True
    return sum(len(piece) for piece in bare.split(b'"')[::2]) > _MOST_OUTSIDE_TEXTS


def moment_of(date: str) -> Optional[float]:
    """A Date header (RFC 9110 section 5.6.7) in seconds since 1970; None where it is none."""
    try:
        return float(calendar.timegm(time.strptime(date, "%a, %d %b %Y %H:%M:%S GMT")))
    except ValueError:
        return None


def seconds_ahead(date: str) -> Optional[float]:
    """How many seconds this host's clock is ahead of a Date header; None where there is none."""
    moment = moment_of(date)
    return None if moment is None else time.time() - moment


def _seconds(text: str) -> int:
    """The seconds of a Retry-After header (RFC 9110 section 10.2.3), at most an hour; 0 for none, and for a date."""
    return min(int(text), _LONGEST_PAUSE) if re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) else 0


def _words(error: Exception) -> str:
    if isinstance(error, socket.timeout):
        return "it did not answer in time"
    if isinstance(error, socket.gaierror):
        return f"its name was not found: {error.strerror}"
    if isinstance(error, (UnusableAuthorities, ProxyRefused)):
        return str(error.strerror)
    if isinstance(error, OSError) and isinstance(getattr(error, "reason", None), str):
        # OpenSSL's reasons are in capitals with underscores.
        said = str(getattr(error, "reason")).replace("_", " ").lower()  # noqa: B009 - only errors of ssl have it
        return f"TLS failed with it: {said}; does it speak https there?"
    if isinstance(error, OSError) and error.strerror:
        return f"it was not reached: {error.strerror}"
    return str(error) or type(error).__name__
