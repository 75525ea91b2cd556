"""Puts the programs that sshd and git start into a folder: compiled where a compiler is, else in Python."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

NAMES = ("lookup", "session", "refs", "branch")
HEADER = "service.h"
COMPILE_SECONDS = 60
# Static where the C library allows it: it starts a third faster, and each login starts three programs.
FLAGS = (("-O2", "-static"), ("-O2",))


def build(folder: Path, *, compiler: str | None = None) -> dict[str, list[str]]:
    """Put all programs into `folder`, whose owner must be the caller; the arguments that start each.

    compiler: a C compiler; None looks for one, "" uses Python. What was built from the same source stays.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o755)
    cc = (shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")) if compiler is None else compiler
    return {name: _compiled(folder, name, cc) or _python(folder, name) for name in NAMES}


def _compiled(folder: Path, name: str, compiler: str | None) -> list[str] | None:
    if not compiler:
        return None
    source, header = _source(f"{name}.c"), _source(HEADER)
    program = folder / f"{name}-{hashlib.sha256(source + header).hexdigest()[:16]}"
    if program.exists():
        return [str(program)]
    text = folder / f"{name}.c"
    _put(text, source, 0o644)
    _put(folder / HEADER, header, 0o644)
    made = folder / f".{name}.new"
    for flags in FLAGS:
        arguments = [compiler, *flags, "-o", str(made), str(text)]
        try:
            ended = subprocess.run(arguments, capture_output=True, check=False, timeout=COMPILE_SECONDS)
        except (OSError, subprocess.SubprocessError):
            return None
        if ended.returncode == 0:
            made.chmod(0o755)
            made.rename(program)
            return [str(program)]
    return None


def _source(name: str) -> bytes:
    return (resources.files("keyrack.git") / "programs" / name).read_bytes()


def _python(folder: Path, name: str) -> list[str]:
    program = folder / f"{name}.py"
    _put(program, _source(f"{name}.py"), 0o644)
    # -I: no environment variable and no folder changes what it loads; -S halves the time to start.
    return [_interpreter(), "-I", "-S", str(program)]


def _interpreter() -> str:
    """A Python for the programs: the system's where there is one, because nobody else can change it."""
    for path in ("/usr/bin/python3", sys.executable):
        if os.access(path, os.X_OK):
            return path
    return sys.executable


def hooks(folder: Path, programs: Mapping[str, Sequence[str]]) -> dict[str, Path]:
    """Folders for core.hooksPath: those of "every" push check it as a whole, "protected" ones each reference too."""
    every = {"pre-receive": "refs", "post-receive": "refs"}
    wanted = {"every": every, "protected": {**every, "update": "branch"}}
    made = {}
    for name, scripts in wanted.items():
        made[name] = folder / f"hooks-{name}"
        made[name].mkdir(exist_ok=True, mode=0o755)
        for script, program in scripts.items():
            _put_hook(made[name] / script, programs[program])
    return made


def _put_hook(path: Path, arguments: Sequence[str]) -> None:
    if len(arguments) == 1:
        _put(path, Path(arguments[0]).read_bytes(), 0o755)
    else:
        # The first line of a script takes one argument on Linux; -IS is both.
        body = Path(arguments[-1]).read_text("utf-8")
        _put(path, f"#!{arguments[0]} -IS\n{body}".encode(), 0o755)


def _put(path: Path, data: bytes, mode: int) -> None:
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(data)
    new.chmod(mode)
    new.rename(path)
