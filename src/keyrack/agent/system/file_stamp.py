"""Tells whether a file is still the one that was read; it opens none."""

from __future__ import annotations

import os
from typing import Optional, Tuple


def stamp(path: str) -> Optional[Tuple[int, ...]]:
    """Changes with a file, and with what a link leads to; None where there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
