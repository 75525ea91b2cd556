"""Finds and runs the host's own programs, without a shell, without our environment, for a bounded time."""

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
    """How a program ended: its status (None: it could not be started or had no time left) and what it said."""

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
    """Run a program (absolute path first) and wait at most `seconds` for it; never raises for what it does."""
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
    """What a program said; what is no UTF-8 cannot be known by it."""
    return output.decode("utf-8", "replace")
