"""Tells whether a file has changed since it was read; it opens none."""

from __future__ import annotations

import os
from typing import Optional, Tuple


def stamp(path: str) -> Optional[Tuple[int, ...]]:
    """A value that changes whenever the file does, also through a link; None where there is no file."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
