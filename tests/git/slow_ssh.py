"""ssh over a thin line, so that a transfer lasts: `slow_ssh.py up|down|late BYTES ssh …`; holds no assertion."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from typing import IO

PAUSE_SECONDS = 0.05
FREELY = (1 << 20, 0.0)
LATE_SECONDS = 3.0  # longer than a push may go on without being measured


def trickle(source: IO[bytes], target: IO[bytes], size: int, pause: float) -> None:
    """Copy to the end, with a pause after each piece of so many bytes; closes the target."""
    try:
        while piece := source.read1(size):  # type: ignore[attr-defined]
            target.write(piece)
            target.flush()
            time.sleep(pause)
        target.close()
    except (BrokenPipeError, ValueError):
        pass


def main(direction: str, size: int, words: list[str]) -> int:
    """Run ssh with one of its two directions slowed down, to so many bytes a pause, or what goes up held back at first;
    its exit code.
    """
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    up_way, down_way = ((size, PAUSE_SECONDS) if direction == one else FREELY for one in ("up", "down"))
    given = (sys.stdin.buffer, process.stdin, *up_way)
    up = threading.Timer(LATE_SECONDS if direction == "late" else 0, trickle, given)
    up.daemon = True
    up.start()
    trickle(process.stdout, sys.stdout.buffer, *down_way)
    return process.wait()


if __name__ == "__main__":
    code = main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
    # git may keep our input open; the thread that reads it must not keep us.
    os._exit(code)
