"""Waits for what a test expects, with a deadline no healthy run comes near; must measure nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

DEADLINE_SECONDS = 60


def wait_until(condition: Callable[[], object], what: str, seconds: float = DEADLINE_SECONDS) -> None:
    """Return once the condition is true; fail with ``what`` was missing after a long while."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {what}"
        time.sleep(0.01)
