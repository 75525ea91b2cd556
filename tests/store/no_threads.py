"""A process that can start no further thread, as at the limit of a container or of a systemd unit."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_MORE_THAN_THERE_IS = 1 << 46


@contextmanager
def no_threads() -> Iterator[None]:
    """While it lasts the system refuses each new thread, as there is no room for its stack."""
    before = threading.stack_size(_MORE_THAN_THERE_IS)
    try:
        yield
    finally:
        threading.stack_size(before)
