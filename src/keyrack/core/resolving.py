"""Looks the names of other hosts up in a bounded time, and only so many at once; must connect to nothing.

The system's resolver ends by itself, but after minutes where its servers do not answer, and nothing can stop it.
"""

from __future__ import annotations

import errno
import socket
import time
from concurrent.futures import Future
from threading import BoundedSemaphore, Thread

SECONDS = 10.0
AT_ONCE = 16

Address = tuple[str, int]

_places = BoundedSemaphore(AT_ONCE)


def addresses(host: str, port: int, kind: socket.SocketKind) -> list[tuple[socket.AddressFamily, Address]]:
    """Where a host is, by its name or address, in the order in which to try; at least one.

    Raises OSError: gaierror where there is no such name, TimeoutError where nobody says within SECONDS.
    """
    late = f"the name {host} was not found within {SECONDS:.0f} seconds"
    until = time.monotonic() + SECONDS
    if not _places.acquire(timeout=SECONDS):  # as many hang as may
        raise TimeoutError(late)
    found: Future[list[tuple[socket.AddressFamily, Address]]] = Future()
    try:
        Thread(target=_look, args=(found, host, port, kind), name="resolving", daemon=True).start()
    except RuntimeError as error:  # as many threads as the system allows
        _places.release()
        raise OSError(errno.EAGAIN, str(error)) from None
    try:
        return found.result(max(0.0, until - time.monotonic()))
    except TimeoutError:
        raise TimeoutError(late) from None


def _look(
    found: Future[list[tuple[socket.AddressFamily, Address]]], host: str, port: int, kind: socket.SocketKind
) -> None:
    try:
        infos = socket.getaddrinfo(host, port, type=kind)
        found.set_result([(info[0], (str(info[4][0]), port)) for info in infos])
    except Exception as error:  # whatever it is, whoever waits is told
        found.set_exception(error)
    finally:
        _places.release()
