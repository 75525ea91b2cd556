"""Looks up the names of other hosts in a bounded time, a bounded number at once; must connect to nothing.

The system's resolver gives up by itself, but only after minutes where its servers do not answer, and nothing can stop
it before. So each lookup has a thread of its own, which may outlive the caller's wait.
"""

from __future__ import annotations

import errno
import socket
import time
from concurrent.futures import Future
from threading import BoundedSemaphore, Thread

SECONDS = 10.0
MAX_LOOKUPS = 16

Address = tuple[str, int]

_places = BoundedSemaphore(MAX_LOOKUPS)


def addresses(host: str, port: int, kind: socket.SocketKind) -> list[tuple[socket.AddressFamily, Address]]:
    """The addresses of a host, given by name or address, in the order in which to try them; at least one.

    Raises OSError: gaierror where there is no such name, TimeoutError where nothing answered within SECONDS.
    """
    timed_out = f"the name {host} was not found within {SECONDS:.0f} seconds"
    deadline = time.monotonic() + SECONDS
    if not _places.acquire(timeout=SECONDS):  # MAX_LOOKUPS lookups hang already
        raise TimeoutError(timed_out)
    answer: Future[list[tuple[socket.AddressFamily, Address]]] = Future()
    try:
        Thread(target=_resolve, args=(answer, host, port, kind), name="resolving", daemon=True).start()
    except RuntimeError as error:  # the system allows no more threads
        _places.release()
        raise OSError(errno.EAGAIN, str(error)) from None
    try:
        return answer.result(max(0.0, deadline - time.monotonic()))
    except TimeoutError:
        raise TimeoutError(timed_out) from None


def _resolve(
    answer: Future[list[tuple[socket.AddressFamily, Address]]], host: str, port: int, kind: socket.SocketKind
) -> None:
    try:
        infos = socket.getaddrinfo(host, port, type=kind)
        answer.set_result([(info[0], (str(info[4][0]), port)) for info in infos])
    except Exception as error:  # the waiting caller gets it, whatever it is
        answer.set_exception(error)
    finally:
        _places.release()
