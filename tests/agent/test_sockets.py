"""Which TCP sockets there are says the kernel, asked by sock_diag or read in /proc: both say the same."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from keyrack.agent.system import processes, sockets


@pytest.fixture(params=["sock_diag", "/proc"])
def source(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a kernel that answers, and of one that knows no such protocol."""
    if request.param == "/proc":
        monkeypatch.setattr(sockets, "_SOCK_DIAG", 250)
        with pytest.raises(OSError):
            list(sockets._asked(1))
    else:
        with socket.create_server(("127.0.0.1", 0)):
            assert list(sockets._asked(1 << sockets._LISTEN))


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Of IPv6, which IPv4 reaches too."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listening:
        yield listening


@pytest.mark.usefixtures("source")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_listener_and_both_ends_of_a_connection_are_told_apart(listener: socket.socket, host: str) -> None:
    port = listener.getsockname()[1]
    with socket.create_connection((host, port)) as near, listener.accept()[0]:
        found = sockets.listening_sockets()
        assert found[_inode(listener)] == ("::", port)
        assert _inode(near) not in found
        assert {(host, port), (host, near.getsockname()[1])} <= processes.peers(os.getpid())


@pytest.mark.usefixtures("source")
def test_ipv4_within_ipv6_is_ipv4() -> None:
    with socket.socket(socket.AF_INET6) as listening:
        listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.bind(("::ffff:127.0.0.1", 0))
        listening.listen()
        assert sockets.listening_sockets()[_inode(listening)] == ("127.0.0.1", listening.getsockname()[1])


def _inode(one: socket.socket) -> str:
    return str(os.fstat(one.fileno()).st_ino)
