"""Starts `python -m keyrack…` for tests by forking a process that has loaded its modules; changes nothing else of it.

So it does with the agent of a demo host, which is `python -I -c TEXT`.

To load them takes most of what a short command takes: a seventh of a second for the agent, a whole one for the service.
The process is the real one from its first own line on: `-m` or the text runs, as the child of whoever asked, with its
own arguments, environment, folder, session and standard files; /proc shows its command line. What asks for anything
more (limits, another account) is started by Python itself, as are the programs that Debian hosts run, any other
`python -c`, what a shell starts, and what the service starts.
"""

from __future__ import annotations

import atexit
import json
import os
import platform
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

LAUNCHER = Path(__file__).with_name("launcher.py")
AGENT_AS_TEXT = "-I -c"
# Beside the program itself, which must not be loaded before it is run.
MODULES = {
    AGENT_AS_TEXT: ("keyrack.agent.cli", "keyrack.agent.doctor", "keyrack.agent.uninstall"),
    "keyrack.agent": ("keyrack.agent.cli", "keyrack.agent.doctor", "keyrack.agent.uninstall"),
    "keyrack.cli.main": (
        *("keyrack.cli.lazy_group", "keyrack.cli.output.ends", "keyrack.cli.machine.serve", "keyrack.cli.apply"),
        *("keyrack.app", "keyrack.serving", "uvloop", "httptools", "psycopg", "sqlalchemy.dialects.postgresql.psycopg"),
    ),
}
_ROOM = 4096  # bytes of a command line, which /proc shows
_MAX = 3  # of launchers at once; the one that was asked longest ago ends
# What Python and the loader read before a program's first line.
_EARLY = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC_")

_original = subprocess.Popen._execute_child  # type: ignore[attr-defined]
_lock = threading.Lock()
_launchers: dict[tuple[str, ...], Launcher] = {}


class Launcher:
    """A process that has the modules of a program loaded, and forks it."""

    def __init__(self, module: str, environment: dict[str, str]) -> None:
        self._near, far = socket.socketpair()
        isolated = ["-I"] if module == AGENT_AS_TEXT else []
        given = ["-" * _ROOM, str(far.fileno()), module, *MODULES[module]]
        command = [sys.executable, *isolated, str(LAUNCHER), *given]
        with far:
            self._process = subprocess.Popen(
                command, pass_fds=(far.fileno(),), env=environment, cwd="/", stdin=subprocess.DEVNULL
            )

    def start(self, asked: dict[str, Any], files: list[int]) -> int:
        """The number of the new process, a child of this one. Raises OSError."""
        text = json.dumps(asked).encode("ascii")
        socket.send_fds(self._near, [len(text).to_bytes(8, "big")], files)
        self._near.sendall(text)
        answer = self._near.recv(8, socket.MSG_WAITALL)
        if len(answer) != 8:
            raise OSError("the launcher went away")
        return int.from_bytes(answer, "big")

    def end(self) -> None:
        """It ends when nobody can ask any more."""
        self._near.close()
        self._process.wait(60)


def use() -> None:
    """From now on, in this process."""
    if sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64"):
        subprocess.Popen._execute_child = _execute_child  # type: ignore[attr-defined]
        atexit.register(_end)


def _end() -> None:
    for launcher in _launchers.values():
        launcher.end()


def _execute_child(self: Any, args: Any, executable: Any, preexec_fn: Any, *more: Any) -> None:
    """In place of Popen's own, with its arguments."""
    (close_fds, pass_fds, cwd, env, _, _, shell) = more[:7]
    pipes = more[7:13]
    (_, gid, gids, uid, umask, start_new_session, process_group) = more[13:]
    words = [os.fsdecode(word) for word in args] if isinstance(args, list | tuple) else []
    plain = not (executable or preexec_fn or pass_fds or shell) and close_fds and umask < 0 and process_group == -1
    plain = plain and sum(len(os.fsencode(word)) + 1 for word in words) < _ROOM
    program = _program(words) if plain and gid is gids is uid is None else None
    if program is not None:
        environment = {os.fsdecode(name): os.fsdecode(value) for name, value in (env or os.environ).items()}
        folder = os.fsdecode(cwd) if cwd is not None else os.getcwd()
        files = [pipes[0], pipes[3], pipes[5]]
        files = [number if file == -1 else file for number, file in enumerate(files)]
        asked = {"words": words, "environment": environment, "folder": folder, "session": bool(start_new_session)}
        pid = _started(program, asked, files) if os.path.isdir(folder) else None
        if pid is not None:
            self.pid, self._child_created = pid, True
            self._close_pipe_fds(*pipes)
            return
    _original(self, args, executable, preexec_fn, *more)


def _program(words: list[str]) -> str | None:
    """Which of MODULES a command line is; None for others."""
    if (
        words[:3] == [sys.executable, "-I", "-c"]
        and len(words) > 3
        and "from keyrack.agent.cli import main" in words[3]
    ):
        return AGENT_AS_TEXT
    is_module = words[:2] == [sys.executable, "-m"] and len(words) > 2 and words[2] in MODULES
    return words[2] if is_module else None


def _started(module: str, asked: dict[str, Any], files: list[int]) -> int | None:
    environment: dict[str, str] = asked["environment"]
    early = {name: value for name, value in environment.items() if name.startswith(_EARLY)}
    key = (module, *(f"{name}={value}" for name, value in sorted(early.items())))
    with _lock:
        launcher = _launchers.pop(key, None)
        try:
            if launcher is None:
                while len(_launchers) >= _MAX:
                    _launchers.pop(next(iter(_launchers))).end()
                launcher = Launcher(module, {**early, "PATH": os.environ.get("PATH", os.defpath)})
            pid = launcher.start(asked, files)
        except OSError:
            return None
        _launchers[key] = launcher
        return pid
