"""What ready_programs.py starts: loads a program's modules and forks the program for whoever asks; imports no test.

launcher.py ROOM SOCKET PROGRAM MODULE…: ROOM is for the words that /proc shows; PROGRAM is a module, or "-I -c" for the
text that follows these words in what is asked, and then this runs with -I itself. Each request is 8 bytes of length
with the three standard files, then as many bytes of JSON; the answer is the number of the new process in 8 bytes. It
ends when nobody can ask any more.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import io
import json
import os
import platform
import runpy
import signal
import socket
import sys
import threading
import time
import types
from typing import Any

CLONE_PARENT = 0x8000
_CLONE = {"x86_64": 56, "aarch64": 220}
_kept: list[object] = []


def wait_for_one(asking: socket.socket, program: str) -> None:
    """Fork for each request; returns in each new process, made into what was asked for."""
    here = ctypes.PyDLL(None)
    while True:
        head, files, _, _ = socket.recv_fds(asking, 8, 3)
        if len(head) != 8:
            os._exit(0)
        length, text = int.from_bytes(head, "big"), b""
        while len(text) < length:
            text += asking.recv(length - len(text))
        # As os.fork() does, but that the new one is no child of ours.
        here.PyOS_BeforeFork()
        pid = here.syscall(_CLONE[platform.machine()], CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0)
        if pid == 0:
            here.PyOS_AfterFork_Child()
            asking.close()
            become(json.loads(text), files)
            return
        here.PyOS_AfterFork_Parent()
        for file in files:
            os.close(file)
        asking.sendall(max(pid, 0).to_bytes(8, "big"))


def become(asked: dict[str, Any], files: list[int]) -> None:
    """Take on the arguments, the environment, the folder, the session and the standard files of the program."""
    for number, file in enumerate(files):
        os.dup2(file, number)
    for file in files:
        if file > 2:
            os.close(file)
    if asked["session"]:
        os.setsid()
    os.chdir(asked["folder"])
    for name in set(os.environ) - asked["environment"].keys():
        del os.environ[name]
    os.environ.update(asked["environment"])
    time.tzset()
    words = asked["words"]
    show(words)
    sys.orig_argv[:] = words
    if sys.flags.isolated:
        sys.argv[:] = ["-c", *words[4:]]
    else:
        sys.argv[:] = ["-m", *words[3:]]
        sys.path.insert(0, asked["folder"])
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        old = getattr(sys, name)
        raw = open(number, "wb" if number else "rb", closefd=False)  # noqa: SIM115 - it stays open
        new = io.TextIOWrapper(raw, old.encoding, old.errors, newline="\n", line_buffering=number == 2 or raw.isatty())
        _kept.append(old)
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)


def show(words: list[str]) -> None:
    """Have /proc show these words, in place of ours: that is what lies where the kernel put them (proc(5), cmdline)."""
    with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
        start, end = map(int, file.read().rpartition(")")[2].split()[45:47])
    text = b"".join(os.fsencode(word) + b"\0" for word in words)
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, text, min(len(text), end - start - 1))


def run_text(text: str) -> None:
    """As `-c` does: in a fresh main module."""
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    exec(compile(text, "<string>", "exec"), vars(main))


def end(status: int) -> None:
    """What Python does at its end that others see; then, without taking all modules apart, the end itself.

    That writes to nearly every page that is shared with who was forked, and takes most of a short command. Where what
    was printed cannot be written, it returns, for Python to say so.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not stream.closed:
                stream.flush()
    except OSError:
        sys.exit(status)
    os._exit(status & 0xFF)


if __name__ == "__main__":
    if not sys.flags.isolated:
        del sys.path[0]  # this file's folder
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # as the program does before it loads
    for module in sys.argv[4:]:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    program = sys.argv[3]
    wait_for_one(socket.socket(fileno=int(sys.argv[2])), program)
    status: object = None
    try:
        if sys.flags.isolated:
            run_text(sys.orig_argv[3])
        else:
            runpy._run_module_as_main(program)  # type: ignore[attr-defined]
    except SystemExit as ended:
        status = ended.code
        if not (status is None or isinstance(status, int)):
            raise
    end(0 if status is None else int(status))  # type: ignore[call-overload]
