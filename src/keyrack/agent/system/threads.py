"""Begins threads, where a host may have no room for one more; must not know what they do."""

from __future__ import annotations

import errno
import threading


def begin(thread: threading.Thread) -> None:
    """Start it. Raises OSError where nothing more can be begun: whoever has an account may have used all there is."""
    try:
        thread.start()
    except RuntimeError:
        raise OSError(errno.EAGAIN, "this host cannot begin anything more (its processes are too many)") from None
