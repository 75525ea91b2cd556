"""A program that waits for Ctrl-C ends by it whenever it comes."""

from __future__ import annotations

import subprocess
import sys

# A timer's signal comes while the wait begins, in some of the rounds right in the middle of that.
ROUNDS = """
import random, signal
from keyrack.cli.machine.stopping import Stopping

stopping = Stopping((signal.SIGALRM,))
for _ in range(60_000):
    stopping._told = False
    signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 30e-6))
    stopping.wait()
    assert stopping.is_told()
print("each ended")
"""
HEARS = """
import os, signal, threading
from keyrack.cli.machine.stopping import Stopping

stopping = Stopping()
signal.signal(signal.SIGCHLD, lambda number, frame: None)
for number in (signal.SIGINT, signal.SIGTERM):
    stopping._told = False
    os.kill(os.getpid(), signal.SIGCHLD)
    assert not stopping.is_told()
    os.kill(os.getpid(), number)
    stopping.wait()
    stopping.wait()
stopping._told = False
threading.Timer(0.1, stopping.tell).start()
stopping.wait()
print("each ended")
"""


def test_a_signal_that_comes_as_the_wait_begins_ends_it() -> None:
    assert _run(ROUNDS) == "each ended\n"


def test_these_two_signals_and_a_thread_end_it_and_no_other() -> None:
    assert _run(HEARS) == "each ended\n"


def _run(program: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    ).stdout
