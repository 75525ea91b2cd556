"""Whether processes that tests began still run; must end none."""

from __future__ import annotations

import contextlib
from pathlib import Path

from tests.waiting import wait_until


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie, which its parent has not asked for yet, does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0] != "Z"
    return False


def pid_in(path: Path) -> int:
    """The number that a command wrote, once it has."""
    wait_until(lambda: path.exists() and path.read_text().strip().isdigit(), f"a number in {path}")
    return int(path.read_text())
