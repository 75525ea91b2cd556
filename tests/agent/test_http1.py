"""The agent's own HTTP/1.1 against servers that behave in every way they may, and in some they may not."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from keyrack.agent.service import http1
from keyrack.agent.service.client import AddressProblem, NoAnswer, ServiceClient
from keyrack.agent.service.http1 import BrokenAnswer, Connection, Dropped, ProxyRefused
from keyrack.agent.service.proxy import Proxy
from tests.endless_answer import GIVEN_UP_SECONDS, endless_answer

ASK_AND_MEASURE = """import sys
from keyrack.agent.service.client import NoAnswer, ServiceClient
try:
    ServiceClient(sys.argv[1]).get("/")
except NoAnswer as problem:
    print(problem)
print(next(int(line.split()[1]) >> 10 for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@contextmanager
def server(connections: Sequence[Sequence[bytes]]) -> Iterator[tuple[int, list[bytes]]]:
    """Gives, on each connection in turn, one scripted answer for each question, then hangs up."""
    asked: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(30)

    def serve() -> None:
        for answers in connections:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(30)
                for answer in answers:
                    question = b""
                    while b"\r\n\r\n" not in question:
                        piece = connection.recv(65536)
                        if not piece:
                            return
                        question += piece
                    asked.append(question)
                    connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1], asked
    finally:
        listener.close()
        thread.join()


@contextmanager
def connected(*connections: Sequence[bytes]) -> Iterator[tuple[Connection, list[bytes]]]:
    """A connection to such a server."""
    with server(connections) as (port, asked):
        connection = Connection("127.0.0.1", port, tls=False, connect_seconds=10)
        yield connection, asked
        connection.close()


def ask(connection: Connection, largest: int = 1000) -> tuple[int, bytes]:
    """One exchange; the status and the body."""
    response = connection.exchange("GET", "/x", {"Accept": "*/*"}, b"", seconds=10, largest=largest)
    return response.status, response.body


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
GOOD = {
    "with a length": OK,
    "without a reason": b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi",
    "in chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1;x=y\r\ni\r\n0\r\nA: b\r\n\r\n",
    "after hints": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + OK,
    "until the end": b"HTTP/1.0 200 OK\r\n\r\nhi",
    "with a repeated length": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\ncontent-length: 2\r\n\r\nhi",
}
BAD = {
    "hints without an end": (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 30 + OK, BrokenAnswer),
    "nothing": (b"", Dropped),
    "another protocol": (b"SSH-2.0-OpenSSH_9.2\r\n", BrokenAnswer),
    "a cut body": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi", BrokenAnswer),
    "a cut header": (b"HTTP/1.1 200 OK\r\nContent-Le", BrokenAnswer),
    "two lengths": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi", BrokenAnswer),
    "a length and chunks": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        BrokenAnswer,
    ),
    "a negative length": (b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nhi", BrokenAnswer),
    "a length in other digits": (b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\nhi", BrokenAnswer),
    "too large a length": (b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n" + b"x" * 1001, BrokenAnswer),
    "too large chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n" + b"x" * 1000 + b"\r\n1\r\nx\r\n0\r\n\r\n",
        BrokenAnswer,
    ),
    "too large without an end": (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1001, BrokenAnswer),
    "compressed": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhi", BrokenAnswer),
    "a header without a colon": (b"HTTP/1.1 200 OK\r\nhello\r\n\r\n", BrokenAnswer),
    "a folded header": (b"HTTP/1.1 200 OK\r\nA: b\r\n Content-Length: 2\r\n\r\nhi", BrokenAnswer),
    "endless headers": (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n", BrokenAnswer),
    "an endless line": (b"HTTP/1.1 200 " + b"x" * 20000, BrokenAnswer),
}


@pytest.mark.parametrize("form", GOOD)
def test_answers_are_read_in_every_form(form: str) -> None:
    with connected([GOOD[form]]) as (connection, asked):
        assert ask(connection) == (200, b"hi")
        assert asked[0].startswith(b"GET /x HTTP/1.1\r\nHost: 127.0.0.1:")


def test_an_answer_without_a_body_ends_at_once() -> None:
    with connected([b"HTTP/1.1 204 No Content\r\n\r\n", OK]) as (connection, _):
        assert ask(connection) == (204, b"")
        assert ask(connection) == (200, b"hi")


def test_the_connection_is_kept() -> None:
    with connected([OK, OK, GOOD["in chunks"]]) as (connection, asked):
        for _ in range(3):
            assert ask(connection) == (200, b"hi")
        assert len(asked) == 3


def test_the_connection_is_closed_when_the_server_wants_it() -> None:
    closing = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"
    with connected([closing], [OK]) as (connection, _):
        assert ask(connection) == (200, b"hi")
        assert not connection.is_open
        assert ask(connection) == (200, b"hi")


@pytest.mark.parametrize("form", BAD)
def test_a_malformed_response_is_no_answer(form: str) -> None:
    answer, kind = BAD[form]
    with connected([answer]) as (connection, _):
        with pytest.raises(kind):
            ask(connection)
        assert not connection.is_open


DRIBBLED = {
    "its status line": b"HTTP/1.1 200 ",
    "a header": b"HTTP/1.1 200 OK\r\nA: ",
    "a body with a length": b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n",
    "a body without a length": b"HTTP/1.1 200 OK\r\n\r\n",
    "a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n",
}


@pytest.mark.parametrize("form", DRIBBLED)
def test_a_response_that_trickles_in_is_given_up(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No single silence is long: the whole would never end."""
    monkeypatch.setattr(http1, "GRACE_SECONDS", 0.5)
    with endless_answer(DRIBBLED[form]) as port:
        connection = Connection("127.0.0.1", port, tls=False, connect_seconds=10)
        began = time.monotonic()
        with pytest.raises(socket.timeout):
            ask(connection)
        assert time.monotonic() - began < GIVEN_UP_SECONDS
        assert not connection.is_open


def test_a_proxy_that_dribbles_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "GRACE_SECONDS", 0.5)
    with endless_answer(b"HTTP/1.1 200 ") as port:
        way_out = Proxy("127.0.0.1", port)
        connection = Connection("keys.example.org", 443, tls=True, connect_seconds=10, proxy=way_out)
        began = time.monotonic()
        with pytest.raises(ProxyRefused, match="in time"):
            ask(connection)
        assert time.monotonic() - began < GIVEN_UP_SECONDS


def test_a_slow_response_that_makes_progress_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hundred bytes a second, for longer than an answer has that does not get on."""
    monkeypatch.setattr(http1, "GRACE_SECONDS", 0.5)
    with endless_answer(b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n", b"a" * 10) as port:
        connection = Connection("127.0.0.1", port, tls=False, connect_seconds=10)
        assert ask(connection) == (200, b"a" * 400)
        connection.close()


def test_no_answer_takes_more_than_its_whole_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "WHOLE_SECONDS", 0.5)
    with endless_answer(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"a" * 10) as port:
        connection = Connection("127.0.0.1", port, tls=False, connect_seconds=10)
        with pytest.raises(socket.timeout):
            ask(connection, 100_000)


def test_a_kept_connection_that_was_dropped_is_made_again() -> None:
    answer = b'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{"a": [1]}'
    with server([[answer], [answer]]) as (port, asked):
        client = ServiceClient(f"http://127.0.0.1:{port}")
        for _ in range(2):
            assert client.get("/x").fields == {"a": [1]}
        assert len(asked) == 2
        client.close()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "ended"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", "not Keyrack"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n[1]\n", "not Keyrack"),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\n\r\n<html>", "status 502"),
    ],
)
def test_a_response_of_something_other_than_keyrack_is_no_answer(answer: bytes, words: str) -> None:
    with server([[answer]]) as (port, _):
        client = ServiceClient(f"http://127.0.0.1:{port}")
        with pytest.raises(NoAnswer, match=words):
            client.get("/x")
        client.close()


def test_a_closed_port_is_no_answer() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        client = ServiceClient(f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(NoAnswer, match="refused"):
            client.get("/x")


@pytest.mark.parametrize(
    "url",
    [
        "keys.example.org",
        "ftp://keys.example.org",
        "https://",
        "https://me:secret@keys.example.org",
        "https://keys.example.org:port",
        "https://keys.example.org/?a=b",
        "http://[::1",
    ],
)
def test_an_address_must_be_one(url: str) -> None:
    with pytest.raises(AddressProblem):
        ServiceClient(url)


@pytest.mark.parametrize("url", ["http://192.0.2.1", "http://127.evil.example"])
def test_the_secret_is_not_sent_in_clear_over_a_network(url: str) -> None:
    with pytest.raises(AddressProblem, match="https"):
        ServiceClient(url)
    ServiceClient(url, plain_http=True)
    for near in ("http://127.0.0.1:1", "http://localhost", "http://[::1]:8022/keyrack"):
        ServiceClient(near)


def test_a_compressed_response_takes_bounded_memory() -> None:
    """In a process of its own, whose memory is measured: twice the largest document, as bytes and as text."""
    pack = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    packed = b"".join(pack.compress(b" " * (1 << 20)) for _ in range(400)) + pack.flush()
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n".encode("ascii")
    with server([[head + packed]]) as (port, _):
        given = [sys.executable, "-c", ASK_AND_MEASURE, f"http://127.0.0.1:{port}"]
        ended = subprocess.run(given, capture_output=True, text=True, check=True, timeout=60)
    words, megabytes = ended.stdout.splitlines()
    assert "too large" in words
    assert int(megabytes) < 600


@pytest.mark.parametrize("many", [b"{},", b"[],", b'"ab",', b"1.5,", b"1" * 4096])
def test_an_answer_of_very_many_values_takes_no_more_memory_than_a_document(many: bytes) -> None:
    """As above, with 60 MB of JSON, of which 300 kB come over the network: as values it would take up to 1.5 GB."""
    body = b'{"document": "", "more": [' + many * ((60 << 20) // len(many)) + b"0]}"
    packed = zlib.compress(body, 1, wbits=zlib.MAX_WBITS | 16)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n".encode("ascii")
    with server([[head + packed]]) as (port, _):
        given = [sys.executable, "-c", ASK_AND_MEASURE, f"http://127.0.0.1:{port}"]
        ended = subprocess.run(given, capture_output=True, text=True, check=True, timeout=60)
    words, megabytes = ended.stdout.splitlines()
    assert "not Keyrack" in words
    assert int(megabytes) < 300
