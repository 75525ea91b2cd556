"""Starts `keyrack` commands as processes of their own without the seconds that Python takes to start; checks nothing.

A server process has imported everything once and forks for each command, so a thousand of them can be killed in the
time that otherwise goes into a thousand starts. What runs, and what SIGKILL ends, is a process like any other.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from keyrack.cli.main import COMMANDS, main

PRELOADED = (
    "__main__",
    __name__,
    *(module for module, _ in COMMANDS.values()),
    *("uvloop", "httptools", "uvicorn.lifespan.on", "uvicorn.logging", "alembic.ddl", "psycopg", "tzdata"),
    *("sqlalchemy.dialects.sqlite", "sqlalchemy.dialects.postgresql"),
)

_forking = multiprocessing.get_context("forkserver")
_forking.set_forkserver_preload(list(PRELOADED))
# Two threads that look after one process at once would each take its one exit code.
_lock = threading.Lock()


class Command:
    """A command under way; words: its arguments; what it says is added to the file `log`."""

    def __init__(self, words: list[str], log: Path) -> None:
        self._process = _forking.Process(target=_run, args=(words, str(log)), daemon=True)
        with _lock:
            self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def exit_code(self) -> int | None:
        """The exit code, -9 after SIGKILL, None while it runs."""
        with _lock:
            return self._process.exitcode

    def send(self, number: signal.Signals) -> None:
        """Send it a signal unless it has ended."""
        with _lock:
            # It may end, and be asked for by its parent's other threads, between the two.
            if self._process.exitcode is None:
                with suppress(ProcessLookupError):
                    os.kill(self.pid, number)

    def wait(self, seconds: float) -> int:
        """Its exit code once it has ended; fails when that takes longer."""
        deadline = time.monotonic() + seconds
        while (code := self.exit_code()) is None:
            assert time.monotonic() < deadline, f"a command did not end within {seconds} s"
            time.sleep(0.005)
        return code


def _run(words: list[str], log: str) -> None:
    said = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for standard in (1, 2):
        os.dup2(said, standard)
    os.close(said)
    sys.argv = ["keyrack", *words]
    main(words, prog_name="keyrack")
