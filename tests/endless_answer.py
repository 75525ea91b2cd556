"""A server whose answer begins well and then comes byte by byte, without end; must judge nothing."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PAUSE_SECONDS = 0.05
GIVEN_UP_SECONDS = 8.0  # for what takes one, and would not end for longer than this
_ENDS_SECONDS = 10.0


@contextmanager
def endless_answer(head: bytes, piece: bytes = b"a") -> Iterator[int]:
    """Its port on loopback. head: what comes at once; piece: what comes after each pause then, for some seconds."""
    over = threading.Event()

    def serve() -> None:
        with suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                connection.sendall(head)
                for _ in range(int(_ENDS_SECONDS / PAUSE_SECONDS)):
                    if over.wait(PAUSE_SECONDS):
                        return
                    connection.sendall(piece)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            over.set()
            listener.close()
            thread.join()
