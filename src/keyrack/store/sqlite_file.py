"""Knows one SQLite file from another, and whole from damaged; must never open it beside the engine.

On POSIX, closing any descriptor of a file drops every lock that the process holds on it (SQLite, "How To Corrupt
An SQLite Database File", 2.2). So from its first connection on, a process looks at the file with stat, and reads
its first bytes through a descriptor that SQLite itself has open.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sqlite3
import threading
import time
import weakref
from dataclasses import dataclass
from urllib.parse import quote

log = logging.getLogger(__name__)

BUSY_SECONDS = 30
"""How long a writer waits for another process's transaction on the same file."""
LOOKS = 5
LOOK_PAUSE_SECONDS = 0.02
"""A first page that looks wrong is read again a few times: another process may be writing it this moment."""

# https://www.sqlite.org/fileformat.html, "The Database Header"
_MAGIC = b"SQLite format 3\x00"
_HEADER_BYTES = 100
_CHANGES_AT, _USER_VERSION_AT = 24, 60
LAST_VERSION = 2**31 - 1

_Identity = tuple[int, int]

# A file that is made here is closed again before anybody in this process can have it open.
_opening = threading.Lock()


@dataclass(frozen=True, slots=True)
class _Header:
    """What the first page in the file itself said, when it was looked at; without what waits in the log."""

    size: int
    changes: int
    version: int


class _Raw(sqlite3.Connection):
    """A connection that leaves everything as it is where its file is no longer its own.

    The last connection to be closed moves the log into the file and removes the log by its name: with another
    database in that place, that one's log.
    """

    file: SqliteFile

    def close(self) -> None:
        if self.file.is_there():
            super().close()


class SqliteFile:
    """One database file, from the first connection of this process to the last.

    `problem` says why it must not be used any more; once set it stays, because what a process has cached of one
    file must never be written into another.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.realpath(path)  # SQLite follows links too, and puts its log beside the file itself
        self.problem: str | None = None
        self._identity: _Identity | None = None
        self._open: weakref.WeakSet[_Raw] = weakref.WeakSet()
        # The rest belongs to the thread that writes.
        self._log: _Identity | None = None
        self._stamp: tuple[int, int] | None = None
        self._header: _Header | None = None

    def connect(self) -> sqlite3.Connection:
        """A bare connection, in autocommit. Only the first one may make the file. Raises sqlite3.Error."""
        for _ in range(LOOKS):
            with _opening:
                if self._identity is None:
                    self._make()
                before = self._stat()
                raw: _Raw = sqlite3.connect(
                    f"file:{quote(self.path)}?mode=rw",
                    uri=True,
                    factory=_Raw,
                    timeout=BUSY_SECONDS,
                    isolation_level=None,
                    check_same_thread=False,
                    cached_statements=512,
                )
                raw.file = self
                self._open.add(raw)
            after = self._stat()
            if before == after:
                break
        if self._identity is None:
            self._identity = after
        if before != after or after != self._identity:
            self.spoilt("was replaced by another file")
        if self.problem is not None:
            raise sqlite3.OperationalError(self.problem)
        return raw

    def is_there(self) -> bool:
        """Whether the file that was opened is still in its place; asked before a connection is closed."""
        if self.problem is None:
            try:
                self._look_at_place()
            except OSError:
                pass  # not being able to look says nothing
        return self.problem is None

    def watch(self, raw: sqlite3.Connection) -> None:
        """Take the file as it is now for the right one; raw: the connection that stays open and is looked with."""
        raw.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()  # which opens the log, where there is none yet
        self._log = _identity_of(f"{self.path}-wal")
        self._stamp = None

    def look(self, raw: sqlite3.Connection) -> bool:
        """Whether the file is still the one that was opened, and whole as far as can be seen; a few microseconds.

        raw: the connection given to watch(). While it is open nobody may remove or replace the log either.
        """
        if self.problem is not None:
            return False
        try:
            now = self._look_at_place()
        except OSError:
            return self.problem is None  # not being able to look says nothing
        if now is None or self.problem is not None:
            return False
        if self._log is not None and _identity_of(f"{self.path}-wal") != self._log:
            return self.spoilt("has lost its log (-wal), which was removed or replaced")
        stamp = (now.st_mtime_ns, now.st_size)
        if stamp == self._stamp:
            return True
        # Somebody moved the log's pages into the file, as SQLite does now and then, or wrote into it past SQLite.
        words: str | None = None
        for _ in range(LOOKS):
            words = self._read_header(raw)
            if words is None:
                self._stamp = stamp
                return True
            time.sleep(LOOK_PAUSE_SECONDS)
        return self.spoilt(words or "")

    def spoilt(self, words: str) -> bool:
        """From now on nothing is read or written; says so in the log, once. Always False."""
        if self.problem is None:
            self.problem = (
                f"The database file {self.path} {words} while Keyrack had it open, so nothing is read or written "
                f"any more. Stop Keyrack, put the right file in its place (with no {os.path.basename(self.path)}-wal "
                "and -shm of another one beside it), and start again."
            )
            log.error(self.problem)
            for raw in tuple(self._open):
                # Not even the end of this process may close it: see _Raw.
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(raw))
        return False

    def damaged(self, error: BaseException) -> None:
        """SQLite itself said that the file is no database, or a broken one."""
        self.spoilt(f"turned out to be damaged ({error})")

    def _make(self) -> None:
        """Make the file where there is none: secrets lie in it, and SQLite gives -wal and -shm the same mode."""
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            return
        except OSError as error:
            raise sqlite3.OperationalError(f"cannot open {self.path}: {error.strerror}") from error

    def _look_at_place(self) -> os.stat_result | None:
        try:
            now = os.stat(self.path)
        except FileNotFoundError:
            self.spoilt("was removed")
            return None
        if self._identity not in (None, (now.st_dev, now.st_ino)):
            self.spoilt("was replaced by another file")
        return now

    def _stat(self) -> _Identity:
        try:
            now = os.stat(self.path)
        except OSError as error:
            if self._identity is not None and isinstance(error, FileNotFoundError):
                self.spoilt("was removed")
            raise sqlite3.OperationalError(f"cannot open {self.path}: {error.strerror}") from error
        return now.st_dev, now.st_ino

    def _read_header(self, raw: sqlite3.Connection) -> str | None:
        """Compare the file's first page with what it said before; what is wrong with it, in words.

        Its counters only go forward, and never beyond what the log has by now: SQLite writes this page when it
        moves the log into the file, and each commit of ours leaves a new one in the log (see count_commit).
        """
        data, size = self._first_bytes()
        if data is None:
            return None
        pages = raw.execute("PRAGMA page_count").fetchone()[0]
        page_size = raw.execute("PRAGMA page_size").fetchone()[0]
        latest = raw.execute("PRAGMA user_version").fetchone()[0]
        before = self._header
        if before is not None and size < min(before.size, pages * page_size):
            return "was cut short"
        if not size:
            return None  # a new one, whose first page is still in the log
        if len(data) < _HEADER_BYTES or not data.startswith(_MAGIC):
            return "was overwritten with something that is no database"
        now = _Header(size, _number(data, _CHANGES_AT), _number(data, _USER_VERSION_AT))
        if now.version > latest or (before is not None and _is_older(now, before)):
            return "was overwritten with another one's content"
        self._header = now
        return None

    def _first_bytes(self) -> tuple[bytes | None, int]:
        """The file's first bytes and its size, through a descriptor that SQLite has open; None where there is none."""
        try:
            names = os.listdir("/dev/fd")
        except OSError:
            return None, 0
        for name in names:
            try:
                number = int(name)
                if self._is_at(number):
                    data = os.pread(number, _HEADER_BYTES, 0)
                    size = os.fstat(number).st_size
                    if self._is_at(number):  # or the number was given to another file meanwhile
                        return data, size
            except (OSError, ValueError):
                continue
        return None, 0

    def _is_at(self, descriptor: int) -> bool:
        now = os.fstat(descriptor)
        return (now.st_dev, now.st_ino) == self._identity


def count_commit(raw: sqlite3.Connection) -> None:
    """Inside a transaction that changed something: move the number forward that look() compares.

    It starts anywhere, so that two databases seldom have numbers near each other.
    """
    version = raw.execute("PRAGMA user_version").fetchone()[0]
    following = version + 1 if version > 0 else 1 + int.from_bytes(os.urandom(4), "big") % 2**30
    raw.execute(f"PRAGMA user_version = {min(following, LAST_VERSION)}")


def _is_older(now: _Header, before: _Header) -> bool:
    return now.version < before.version or now.changes < before.changes


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")


def _identity_of(path: str) -> _Identity | None:
    try:
        now = os.stat(path)
    except OSError:
        return None
    return now.st_dev, now.st_ino
