"""Waits for what a test expects, with a deadline no healthy run comes near; must measure nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

DEADLINE_SECONDS = 60


def wait_until(condition: Callable[[], object], what: str, seconds: float = DEADLINE_SECONDS) -> None:
    """Return once the condition is true; fail with ``what`` was missing after a long while.

    It is asked fifty times a second, and less often when asking starts programs: what is waited for needs the
    processors too, and so do the tests beside it.
    """
    deadline = time.monotonic() + seconds
    while True:
        asked = time.monotonic()
        if condition():
            return
        now = time.monotonic()
        assert now < deadline, f"waited {seconds} s in vain: {what}"
        time.sleep(min(max(0.02, 3 * (now - asked)), 0.5))
