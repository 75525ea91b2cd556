"""Runs one benchmark as a process: shows what it says as it says it, ends it in time, and leaves nothing behind it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
CANNOT = 3
"""How a benchmark ends that misses what it needs, which says nothing of Keyrack."""
MARK = "KEYRACK_BENCH_OF"
"""A variable of all that a benchmark starts: the process of this program, by which they are found."""
TO_CLEAN_UP = 60.0
"""Seconds that a benchmark has, once it was asked to end, to stop its services and take away what it made."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What a benchmark printed, on either way, and how it ended: its exit status, or None where it took too long."""

    said: str
    errors: str
    status: int | None

    @property
    def why(self) -> str:
        """The last line of its errors, which says why it failed."""
        return (self.errors.strip().splitlines() or ["it said nothing"])[-1][:300]


def _shown(lines: Iterable[str], kept: list[str]) -> None:
    for line in lines:
        kept.append(line)
        print(f"   {line}", end="", flush=True)


def run(command: Sequence[str], most_seconds: float) -> Ended:
    """Run it until it ends, at most for so long; what it started and did not end is ended with it."""
    # Who was started with interruptions ignored hands that on, and could not be told to end.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", cwd=ROOT,
        start_new_session=True, env={**os.environ, MARK: str(os.getpid())},
    )  # fmt: skip
    said: list[str] = []
    errors: list[str] = []
    pairs = ((process.stdout, said), (process.stderr, errors))
    readers = [threading.Thread(target=_shown, args=pair, daemon=True) for pair in pairs]
    for reader in readers:
        reader.start()
    status: int | None = None
    try:
        status = process.wait(most_seconds)
    except subprocess.TimeoutExpired:
        pass
    finally:
        _end(process)
    for reader in readers:
        reader.join(5)
    return Ended("".join(said), "".join(errors), status)


def _end(process: subprocess.Popen[str]) -> None:
    """It is asked to end, so that it cleans up, and made to end; then all that is left of what it started."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(TO_CLEAN_UP)
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not (left := _left()):
            break
        for one in left:
            with suppress(ProcessLookupError):
                os.kill(one, number)
        time.sleep(2)
    process.wait()


def _left() -> list[int]:
    """The processes that live and bear our mark, in whatever session (proc_pid_environ(5))."""
    mark, found = f"{MARK}={os.getpid()}".encode(), []
    for file in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark in file.read_bytes().split(b"\0"):
                found.append(int(file.parent.name))
    return found
