"""Ends what a run of tests has started once its own processes are gone, however they went; must touch nothing else.

Of a run that is killed nobody comes to tidy up: databases, sshds, agents and whole systems would run on. So a process
beside the run, which no Ctrl-C reaches, is given the processes that run tests, the name spaces that they have
alone, and of folders; when the last of those processes has ended, so do all in the name spaces, and the folders go.
What a process has started is in its name space, whatever became of its parents, its session and its words.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

SECONDS = 20  # that a database has to stop, and that those who are killed have
_telling: int | None = None
_watcher: subprocess.Popen[bytes] | None = None


def watch() -> None:
    """In the process that begins a run, before it forks: have it looked after."""
    global _telling, _watcher
    if sys.platform != "linux" or _watcher is not None:
        return
    read_end, _telling = os.pipe()
    given = [sys.executable, "-I", "-S", str(Path(__file__))]
    # A session of its own, so that the keyboard's signals and a kill of the whole group leave it alone.
    _watcher = subprocess.Popen(given, stdin=read_end, stdout=subprocess.DEVNULL, cwd="/", start_new_session=True)
    os.close(read_end)
    tell("process", str(os.getpid()))


def tell(kind: str, of_the_run: str) -> None:
    """kind: "process" and its number, "space" and the number of a process in it, or "folder" and its path."""
    if _telling is not None:
        with contextlib.suppress(OSError):  # whoever killed everything killed the watcher too
            os.write(_telling, f"{kind} {of_the_run}\n".encode())


def leave() -> None:
    """In the process that called watch(): the run is over. Returns when nothing of it is left."""
    global _telling, _watcher
    if _watcher is not None and _telling is not None:
        tell("end", "")
        os.close(_telling)
        _watcher.wait(3 * SECONDS)
        _telling = _watcher = None


class _Run:
    """What is known of the run."""

    def __init__(self) -> None:
        self.spaces: set[str] = set()
        self.folders: set[Path] = set()
        self._processes: dict[int, int] = {}  # those that run tests, by open files that stand for them
        self._text = b""
        self._is_over = False

    def follow(self) -> None:
        """Until it is over: it was said, nobody is left who could say it, or all who run tests have ended."""
        asked = select.poll()
        asked.register(0, select.POLLIN)
        while not self._is_over:
            ready = [file for file, _ in asked.poll()]
            if 0 in ready:
                self._hear(os.read(0, 65536))
                for file in self._processes:
                    asked.register(file, select.POLLIN)
                continue  # what was written is read before any end
            for file in ready:
                asked.unregister(file)
                del self._processes[file]
                os.close(file)
            self._is_over = not self._processes

    def inside(self) -> list[int]:
        """The processes in its name spaces, but those that run tests."""
        found = []
        for name in os.listdir("/proc"):
            with contextlib.suppress(OSError):  # it ended, or is another account's
                if name.isdigit() and space(name) in self.spaces and int(name) not in self._processes.values():
                    found.append(int(name))
        return found

    def _hear(self, text: bytes) -> None:
        self._is_over |= not text
        *lines, self._text = (self._text + text).split(b"\n")
        for line in lines:
            kind, _, what = os.fsdecode(line).partition(" ")
            if kind == "process":
                with contextlib.suppress(ProcessLookupError):
                    self._processes[os.pidfd_open(int(what))] = int(what)
            elif kind == "space":
                with contextlib.suppress(OSError):  # it has ended already
                    # Held open for as long as we are: the number of one that is gone is given to the next, of whoever.
                    held = os.open(f"/proc/{int(what)}/ns/uts", os.O_RDONLY)
                    self.spaces.add(os.readlink(f"/proc/self/fd/{held}"))
            elif kind == "folder":
                self.folders.add(Path(what))
            self._is_over |= kind == "end"


def space(pid: int | str = "self") -> str:
    """What /proc calls the name space of names of a process: it is the run's own, and no tool that tests use makes one
    beside whole systems. Raises OSError when there is no such process.
    """
    return os.readlink(f"/proc/{pid}/ns/uts")


def _clean(run: _Run) -> None:
    run.spaces.discard(space())  # the machine's own, and everybody's
    # A database that stops itself takes its shared memory along.
    _until_gone(lambda: list(_databases(run.folders)), signal.SIGQUIT, again=False)
    _until_gone(run.inside, signal.SIGKILL, again=True)
    for folder in run.folders:
        shutil.rmtree(folder, ignore_errors=True)


def _until_gone(found: Callable[[], list[int]], number: signal.Signals, *, again: bool) -> None:
    """Send it to whatever is found until nothing is; again: each time, as what dies may have started something."""
    deadline = time.monotonic() + SECONDS
    is_asked = False
    while (pids := found()) and time.monotonic() < deadline:
        for pid in pids if again or not is_asked else ():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        is_asked = True
        time.sleep(0.02)


def _databases(folders: set[Path]) -> Iterator[int]:
    for folder in folders:
        data = folder / "data"
        with contextlib.suppress(OSError, ValueError, IndexError):
            pid = int((data / "postmaster.pid").read_text("ascii").split("\n")[0])
            if Path(os.readlink(f"/proc/{pid}/cwd")) == data:  # not who has its number since
                yield pid


if __name__ == "__main__":
    here = _Run()
    here.follow()
    _clean(here)
