"""A program that waits for Ctrl-C ends by it whenever it comes."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

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

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup
stopping = Stopping()
signal.signal(signal.SIGCHLD, lambda number, frame: None)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
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


def test_a_wait_is_ended_by_these_signals_or_a_thread_alone() -> None:
    assert _run(HEARS) == "each ended\n"


def test_nohup_keeps_it_going() -> None:
    ignored = "import signal; signal.signal(1, signal.SIG_IGN); from keyrack.cli.machine.stopping import Stopping; "
    assert _run(ignored + "Stopping(); print(signal.getsignal(1) is signal.SIG_IGN)") == "True\n"


def _run(program: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    ).stdout


LOADING = """
import sys, time

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            print("loading", flush=True)
            time.sleep(30)

sys.meta_path.insert(0, Slow())
from keyrack.cli.main import main
main(sys.argv[2:], prog_name="keyrack")
"""


@pytest.mark.parametrize(
    ("loading", "ended"),
    [
        ("click", (-signal.SIGINT, "")),
        ("keyrack.cli.lazy_group", (-signal.SIGINT, "")),
        ("keyrack.cli.people", (1, "Aborted!\n")),
    ],
)
def test_a_command_that_is_stopped_while_it_loads_shows_no_place_in_python(
    loading: str, ended: tuple[int, str]
) -> None:
    command = subprocess.Popen(
        [sys.executable, "-c", LOADING, loading, "people", "list"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_hears_ctrl_c,
    )
    assert command.stdout is not None
    assert command.stdout.readline() == "loading\n"
    command.send_signal(signal.SIGINT)
    _, said = command.communicate(timeout=30)
    assert (command.returncode, said.lstrip("\n")) == ended


def test_importing_the_command_leaves_the_handling_of_ctrl_c_alone() -> None:
    program = "import signal, keyrack.cli.main; print(signal.getsignal(2) is signal.default_int_handler)"
    assert _run("import signal; signal.signal(2, signal.default_int_handler); " + program) == "True\n"
    assert _run("import signal; signal.signal(2, signal.SIG_IGN); " + program) == "False\n"


def _hears_ctrl_c() -> None:
    """Where these tests run in the background, all that they start would ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
