"""Says when this machine has processors and memory to spare for one more worker; must start and stop nothing."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable
from pathlib import Path

IDLE = 0.2  # of all processors' time, so that one who joins takes nothing from those at work
SECONDS = 1.0  # for which it is looked at
MEMORY = 1 << 20  # KiB that must be free: some workers have a browser


def wait_for_room(turn: Path, is_over: Callable[[], bool]) -> bool:
    """Return True once there is room for one more, False when is_over() says that nothing is left to do.

    turn: a file that all of a run have. Whoever waits looks alone, so that one joins at a time and is then seen.
    """
    with turn.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        before = _times()
        while not is_over():
            time.sleep(SECONDS)
            now = _times()
            idle, every = (late - early for late, early in zip(now, before, strict=True))
            if every and idle / every >= IDLE and _memory() >= MEMORY:
                return True
            before = now
        return False


def _times() -> tuple[int, int]:
    """How long all processors had nothing to do since the start of the machine, and all of their time (proc(5))."""
    first = Path("/proc/stat").read_text("ascii").split("\n", 1)[0]
    # Of guests is counted with users already; waiting for a disk (iowait) is idle.
    numbers = [int(number) for number in first.split()[1:9]]
    return numbers[3] + numbers[4], sum(numbers)


def _memory() -> int:
    """KiB that programs can still have."""
    lines = Path("/proc/meminfo").read_text("ascii").split("\n")
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
