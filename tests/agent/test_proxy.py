"""An agent behind an outgoing proxy: found as curl finds it, asked for a tunnel, and named where it is at fault."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from keyrack.agent.service import proxy
from keyrack.agent.service.client import AddressProblem, NoAnswer, ServiceClient
from keyrack.agent.service.proxy import Proxy
from tests.agent.enrolled_host import EnrolledHost
from tests.agent.signed_documents import document
from tests.agent.small_service import SmallService

HTTPS = "https://keys.example.org"
RESET = b"reset"


@contextmanager
def tunnels(answer: bytes = b"") -> Iterator[tuple[int, list[bytes]]]:
    """A proxy that answers this (RESET: it resets the connection), or makes tunnels to loopback whatever name it is
    asked for; what it was asked.
    """
    asked: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection:
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(1)
            asked.append(head)
            if answer == RESET:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            if answer:
                connection.sendall(answer)
                return
            port = int(head.split(b" ")[1].rpartition(b":")[2])
            with socket.create_connection(("127.0.0.1", port)) as server:
                connection.sendall(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 test\r\n\r\n")
                back = threading.Thread(target=copy, args=(server, connection))
                back.start()
                copy(connection, server)
                back.join()

    def copy(source: socket.socket, target: socket.socket) -> None:
        try:
            while piece := source.recv(65536):
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def accept() -> None:
        try:
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
        except OSError:
            pass

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield listener.getsockname()[1], asked
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def test_a_host_enrols_and_obeys_through_a_proxy(folder: Path, service: SmallService) -> None:
    """Under a name that only the proxy knows."""
    port = service.url.rpartition(":")[2]
    host = EnrolledHost(folder)
    with tunnels() as (proxy_port, asked):
        environment = {
            "KEYRACK_AGENT_URL": f"http://keys.invalid:{port}",
            "KEYRACK_AGENT_TOKEN": "t0ken",
            "http_proxy": f"http://host:s%40cret@127.0.0.1:{proxy_port}",
        }
        ended = host.agent("enroll", "--plain-http", environment=environment)
        assert ended.returncode == 0, ended.stderr
        service.publish(1, service.signer.signed(document(1, {})))
        # The service's unit has nothing of the environment in which the host enrolled.
        ended = host.agent("run", "--once")
        assert ended.returncode == 0, ended.stderr
        assert service.wait_for_report("applied", 1)
        assert all(head.startswith(f"CONNECT keys.invalid:{port} HTTP/1.1\r\n".encode()) for head in asked)
        assert all(b"\r\nProxy-Authorization: Basic aG9zdDpzQGNyZXQ=\r\n" in head for head in asked)
    ended = host.agent("run", "--once")
    assert ended.returncode == 1
    assert f"the proxy 127.0.0.1:{proxy_port} was not reached" in ended.stderr
    assert "s@cret" not in ended.stderr


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", "it wants a user and a password"),
        (b"HTTP/1.0 403 Forbidden\r\n\r\nno", "makes no connection to keys.invalid:443: status 403"),
        (b"SSH-2.0-x\r\n\r\n", "makes no connection"),
        (b"HTTP/1.1 200 OK\r\n", "the connection ended"),
        (RESET, "makes no connection: Connection reset by peer"),
    ],
)
def test_a_proxy_that_makes_no_tunnel_is_named(answer: bytes, words: str) -> None:
    with tunnels(answer) as (port, _):
        client = ServiceClient("https://keys.invalid", proxy=f"http://127.0.0.1:{port}")
        with pytest.raises(NoAnswer) as refused:
            client.get("/agent/v1/document")
    assert words in str(refused.value)
    assert f"the proxy 127.0.0.1:{port}" in str(refused.value)


@pytest.mark.parametrize(
    ("url", "environment", "found"),
    [
        (HTTPS, {}, None),
        (HTTPS, {"HTTPS_PROXY": "http://p:3128"}, Proxy("p", 3128)),
        (HTTPS, {"https_proxy": "p:3128/"}, Proxy("p", 3128)),
        (HTTPS, {"ALL_PROXY": "http://[::1]"}, Proxy("::1", 80)),
        (HTTPS, {"http_proxy": "http://p:3128", "HTTP_PROXY": "http://p:3128"}, None),
        ("http://keys.example.org", {"HTTP_PROXY": "http://p:3128"}, None),
        ("http://keys.example.org", {"http_proxy": "http://p:3128"}, Proxy("p", 3128)),
        ("https://127.0.0.1:8443", {"HTTPS_PROXY": "http://p:3128"}, None),
        ("http://localhost:8080", {"http_proxy": "http://p:3128"}, None),
        *(
            (url, {"HTTPS_PROXY": "http://p:1", "NO_PROXY": spared}, None)
            for url, spared in (
                (HTTPS, "*"),
                (HTTPS, "localhost, .example.org"),
                (HTTPS, "example.org"),
                (HTTPS, "*.example.org"),
                (HTTPS, "KEYS.example.org."),
                ("https://10.1.2.3", "192.0.2.1,10.0.0.0/8"),
                ("https://[2001:db8::7]", "2001:db8::/32"),
            )
        ),
        *(
            (url, {"HTTPS_PROXY": "http://p:1", "no_proxy": spared}, Proxy("p", 1))
            for url, spared in ((HTTPS, "other.org,ample.org"), (HTTPS, ""), ("https://10.1.2.3", "10.1.3.0/24"))
        ),
    ],
)
def test_the_proxy_is_found_as_curl_finds_it(url: str, environment: dict[str, str], found: Proxy | None) -> None:
    assert proxy.find(url, None, environment) == found
    assert proxy.find(url, "none", environment) is None
    assert proxy.find(url, "http://other:8080", environment) == Proxy("other", 8080)


@pytest.mark.parametrize("setting", ["socks5://p:1080", "https://p", "http://", "http://p:port", "http://p:99999"])
def test_another_kind_of_proxy_is_refused_with_words(setting: str) -> None:
    with pytest.raises(AddressProblem, match="is no address like"):
        ServiceClient(HTTPS, proxy=setting)
