"""Finds and runs the host's own programs, for a bounded time; must use no shell and not pass on its own environment."""

from __future__ import annotations

import os
import subprocess
from typing import NamedTuple, Optional, Sequence

# Not the caller's PATH: the agent runs as root, and these belong to root everywhere.
_FOLDERS = (
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
    "/run/current-system/sw/bin",
    "/opt/homebrew/sbin",
    "/opt/homebrew/bin",
)

ENVIRONMENT = {"PATH": os.pathsep.join(_FOLDERS), "LC_ALL": "C"}


class Ended(NamedTuple):
    """How a program ended. status: None where it could not be started or did not end in time, below 0 for a signal;
    output, errors: what it wrote, or why there is no status.
    """

    status: Optional[int]
    output: str
    errors: str


def find(name: str) -> Optional[str]:
    """The absolute path of a program, or None."""
    for folder in _FOLDERS:
        path = os.path.join(folder, name)
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    return None


def run(arguments: Sequence[str], *, stdin: bytes = b"", seconds: float = 10.0) -> Ended:
    """Run a program (its absolute path first) and wait `seconds` for it at most. Errors are in the answer."""
    try:
        ended = subprocess.run(
            list(arguments),
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            cwd="/",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Ended(None, "", f"{arguments[0]} did not end within {seconds:g} seconds")
    except OSError as error:
        return Ended(None, "", f"{arguments[0]} cannot be started: {error.strerror}")
    return Ended(ended.returncode, text(ended.stdout), text(ended.stderr))


def text(output: bytes) -> str:
    """A program's output as text; bytes that are no UTF-8 become U+FFFD."""
    return output.decode("utf-8", "replace")
