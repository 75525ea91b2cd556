"""Ports of loopback for tests; must never give one port to two tests, also not of different processes."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

# Below those that the kernel gives to whoever connects, so that no connection takes one before its server starts.
PORTS = range(10_000, 32_000)
TRIES = 1000
_given: set[int] = set()
_files: dict[int, int] = {}  # by process, as a child's locks are its own


def free_port() -> int:
    """A port that nobody listens on, and that no other test of this account gets while this process lives.

    Raises OSError when there is none.
    """
    for _ in range(TRIES):
        port = random.choice(PORTS)
        if port not in _given and _lock(port) and _is_free(port):
            _given.add(port)
            return port
    raise OSError("no port of loopback is free")


def _lock(port: int) -> bool:
    """Take the byte of a common file that stands for the port; the kernel lets go of it when this process ends."""
    pid = os.getpid()
    if pid not in _files:
        path = Path(tempfile.gettempdir()) / f"keyrack-tests-ports-{os.geteuid()}"
        _files[pid] = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(_files[pid], fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
