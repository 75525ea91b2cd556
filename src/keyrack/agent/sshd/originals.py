"""Keeps files of the host as they were before the agent changed them, and restores them to the byte; must decide
nothing about when.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import stat
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from keyrack.agent.system.folder import PUBLIC_FILE, PUBLIC_FOLDER, Folder, FolderProblem

_LARGEST = 1 << 20


class Original(NamedTuple):
    """One file as it was: bytes, mode, owner and times; data None: there was none."""

    path: str
    data: Optional[bytes] = None
    mode: int = PUBLIC_FILE
    owner: int = 0
    group: int = 0
    read_at: int = 0
    changed_at: int = 0

    def to_json(self) -> Dict[str, Any]:
        """For a note."""
        data = None if self.data is None else base64.b64encode(self.data).decode("ascii")
        return {**self._asdict(), "data": data}

    @classmethod
    def from_json(cls, fields: Any) -> Original:
        """Read what to_json wrote. Raises ValueError."""
        try:
            known = {name: value for name, value in fields.items() if name in cls._fields}
            data = known.get("data")
            return cls(**{**known, "data": None if data is None else base64.b64decode(data, validate=True)})
        except (AttributeError, TypeError, binascii.Error) as error:
            raise ValueError("a note about a file is damaged") from error


def read(path: str) -> Original:
    """A file as it is now; links in its path are followed. May raise OSError, also for what is no regular file."""
    real = os.path.realpath(path)
    try:
        folder = Folder.open(os.path.dirname(real), PUBLIC_FOLDER)
    except FileNotFoundError:
        return Original(real)
    try:
        data = folder.read(os.path.basename(real), _LARGEST)
    except FileNotFoundError:
        return Original(real)
    finally:
        folder.close()
    status = os.lstat(real)
    return Original(
        real,
        data,
        stat.S_IMODE(status.st_mode),
        status.st_uid,
        status.st_gid,
        status.st_atime_ns,
        status.st_mtime_ns,
    )


def put(path: str, data: bytes, mode: int, owner: Optional[Tuple[int, int]] = None) -> None:
    """Write a file whole, durably; owner: user and group, where not ours.

    Raises FolderProblem where others could write there, or OSError.
    """
    folder = Folder.open(os.path.dirname(path), PUBLIC_FOLDER)
    try:
        folder.write(os.path.basename(path), data, mode, owner=owner, keep_attributes=True)
        folder.sync()
    finally:
        folder.close()


def restore(original: Original) -> None:
    """Make a file what it was, with mode, owner and times; one that is so is left alone, for it may be one that
    nobody can write. Raises FolderProblem or OSError.
    """
    if read(original.path)._replace(read_at=original.read_at) == original:
        return
    folder = Folder.open(os.path.dirname(original.path), PUBLIC_FOLDER)
    try:
        name = os.path.basename(original.path)
        if original.data is None:
            if name in folder.names():
                folder.remove(name)
        else:
            owner, times = (original.owner, original.group), (original.read_at, original.changed_at)
            folder.write(name, original.data, original.mode, owner=owner, times=times, keep_attributes=True)
        folder.sync()
    finally:
        folder.close()


def restore_all(files: List[Original]) -> List[str]:
    """Make all of them what they were, the last changed first, and remove what a killed agent left unfinished beside
    them; answers what could not be, in words.
    """
    problems = []
    for path in {os.path.dirname(original.path) for original in files}:
        with contextlib.suppress(OSError, FolderProblem):
            folder = Folder.open(path, PUBLIC_FOLDER)
            try:
                folder.sweep()
            finally:
                folder.close()
    for original in reversed(files):
        try:
            restore(original)
        except (OSError, FolderProblem, ValueError) as error:
            problems.append(f"{original.path} could not be made what it was: {error}")
    return problems
