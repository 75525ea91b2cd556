"""Starts threads on a host that may have no process left for one; must not know what they do."""

from __future__ import annotations

import errno
import threading


def begin(thread: threading.Thread) -> None:
    """Start a thread. Raises OSError where the host cannot: an account may have used up all processes."""
    try:
        thread.start()
    except RuntimeError:
        raise OSError(errno.EAGAIN, "this host cannot begin anything more (its processes are too many)") from None
