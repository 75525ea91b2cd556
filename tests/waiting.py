"""Waits for what a test expects, with a deadline that no healthy run comes near; must measure nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

DEADLINE_SECONDS = 60
SHORTEST, LONGEST = 0.01, 0.25  # seconds between two questions


def wait_until(condition: Callable[[], object], what: str, seconds: float = DEADLINE_SECONDS) -> None:
    """Return once the condition is true; fail with ``what`` was missing after a long while.

    What is waited for needs the processors too, and so do the tests beside it: it is asked less often the longer it
    takes, within a tenth of the wait, and when asking itself takes long, as where it starts programs.
    """
    began = time.monotonic()
    deadline = began + seconds
    while True:
        asked = time.monotonic()
        if condition():
            return
        now = time.monotonic()
        assert now < deadline, f"waited {seconds} s in vain: {what}"
        pause = min(max(SHORTEST, (now - began) / 10), LONGEST)
        time.sleep(min(max(pause, 3 * (now - asked)), 0.5))
