"""Lists TCP sockets of a network namespace, with their inodes and addresses; it judges nothing.

It uses sock_diag(7), which lists listening sockets in a twentieth of a millisecond. /proc/net/tcp is slow on machines
with much memory (10 ms with 24 GB), and is read only where the kernel or a sandbox refuses sock_diag.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
from typing import Dict, Iterator, NamedTuple, Tuple

Address = Tuple[str, int]

_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_SOCK_DIAG = 4  # NETLINK_SOCK_DIAG (linux/netlink.h)
_BY_FAMILY = 20  # SOCK_DIAG_BY_FAMILY
_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, kind, flags, number, process
_WANTED = struct.Struct("=BBBxI48x")  # inet_diag_req_v2: family, protocol, extensions, states, any socket
# inet_diag_msg: family, state, timer, retransmissions, ports, addresses, ..., the socket's inode.
_FOUND = struct.Struct("!BBxxHH16s16s")
_INODE = struct.Struct("=I")
_INODE_AT = 68
_LISTEN = 10  # TCP_LISTEN
_EVERY_STATE = (1 << 13) - 1
_LARGEST_ANSWER = 1 << 16


class TcpSocket(NamedTuple):
    """A TCP socket: its inode, and the addresses of this end and of the other."""

    inode: str
    near: Address
    far: Address


def listening_sockets() -> Dict[str, Address]:
    """Every listening TCP socket of the agent's network namespace: inode to address and port."""
    try:
        return {one.inode: one.near for one in _asked(1 << _LISTEN)}
    except OSError:
        return {one.inode: one.near for one in _read("self", _LISTEN)}


def far_ends(pid: int) -> Dict[str, Address]:
    """Every TCP socket of a process's network namespace: inode to the address and port at its other end."""
    with contextlib.suppress(OSError):
        if os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            return {one.inode: one.far for one in _asked(_EVERY_STATE)}
    return {one.inode: one.far for one in _read(str(pid))}


def _asked(states: int) -> Iterator[TcpSocket]:
    """The sockets in these states (a bit mask), by sock_diag. Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _SOCK_DIAG) as kernel:
        kernel.settimeout(5.0)
        for family in _FAMILIES:
            request = _WANTED.pack(family, socket.IPPROTO_TCP, 0, states)
            kernel.send(_HEADER.pack(_HEADER.size + len(request), _BY_FAMILY, _DUMP, 1, 0) + request)
            yield from _answers(kernel)


def _answers(kernel: socket.socket) -> Iterator[TcpSocket]:
    while True:
        data, at = kernel.recv(_LARGEST_ANSWER), 0
        while at < len(data):
            length, kind, _, _, _ = _HEADER.unpack_from(data, at)
            if kind == _DONE:
                return
            if kind == _ERROR or length < _HEADER.size + _INODE_AT + _INODE.size:
                raise OSError("sock_diag is refused")
            body = at + _HEADER.size
            _, _, near_port, far_port, near, far = _FOUND.unpack_from(data, body)
            inode = _INODE.unpack_from(data, body + _INODE_AT)[0]
            family = data[body]
            yield TcpSocket(str(inode), (_text(family, near), near_port), (_text(family, far), far_port))
            at += length + -length % 4


def _text(family: int, raw: bytes) -> str:
    return _host(raw[:4] if family == socket.AF_INET else raw)


def _read(pid: str, only: int = 0) -> Iterator[TcpSocket]:
    """The sockets of a process's network namespace, by /proc. only: in this state; 0: in any."""
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError, ValueError), open(f"/proc/{pid}/net/{table}", encoding="ascii") as file:
            next(file, None)
            for line in file:
                fields = line.split()
                if not only or int(fields[3], 16) == only:
                    yield TcpSocket(fields[9], _address_of(fields[1]), _address_of(fields[2]))


def _address_of(text: str) -> Address:
    """An address and port of /proc/net/tcp: the kernel writes it as 32-bit words in the machine's own byte order."""
    words, _, port = text.partition(":")
    raw = b"".join(int(words[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(words), 8))
    return _host(raw), int(port, 16)


def _host(raw: bytes) -> str:
    """An address of 4 or 16 bytes as text; IPv4 mapped into IPv6 as IPv4."""
    if len(raw) == 16 and raw[:12] == bytes(10) + b"\xff\xff":
        raw = raw[12:]
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)
