"""Keeps files of the host as they were before the agent changed them, and restores them to the byte; must not decide
when.
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
    """One file as it was: bytes, mode, owner and times (nanoseconds since 1970). data: None where there was no file."""

    path: str
    data: Optional[bytes] = None
    mode: int = PUBLIC_FILE
    owner: int = 0
    group: int = 0
    read_at: int = 0
    changed_at: int = 0

    def to_json(self) -> Dict[str, Any]:
        """As JSON, for a note in the state folder."""
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
    """A file as it is now; links in its path are followed. May raise OSError, also where it is no regular file."""
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
    """Write a file atomically and sync it. owner: user id and group id, where not the agent's own.

    Raises FolderProblem where others could write there, or OSError.
    """
    folder = Folder.open(os.path.dirname(path), PUBLIC_FOLDER)
    try:
        folder.write(os.path.basename(path), data, mode, owner=owner, keep_attributes=True)
        folder.sync()
    finally:
        folder.close()


def restore(original: Original) -> None:
    """Restore a file's bytes, mode, owner and times. One that has not changed is not written, as it may be one that
    cannot be written. Raises FolderProblem or OSError.
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
    """Restore all of these files, the last one first, and remove unfinished files that a killed agent left beside them.
    Answers what could not be restored, in words.
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
