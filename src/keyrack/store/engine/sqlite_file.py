"""Checks that the SQLite file is still the one that was opened, and intact; must never open it apart from SQLite.

On POSIX, closing any descriptor of a file drops every lock that the process holds on it (SQLite, "How To Corrupt
An SQLite Database File", 2.2). So from its first connection on, a process checks the file with stat, and reads
its first bytes through a descriptor that SQLite itself has open.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sqlite3
import struct
import threading
import time
import weakref
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from urllib.parse import quote

log = logging.getLogger(__name__)

BUSY_SECONDS = 30
"""How long a writer waits for another process's transaction on the same file."""
READ_ATTEMPTS = 5
RETRY_PAUSE_SECONDS = 0.02
"""A first page that seems wrong is read again a few times, as another process may be writing it."""

# https://www.sqlite.org/fileformat.html, "The Database Header"
_MAGIC = b"SQLite format 3\x00"
_HEADER_BYTES = 100
_CHANGES_AT, _USER_VERSION_AT = 24, 60
# The same, "The WAL File Format": a magic number, whose last bit says in which order bytes are summed, to two sums.
_LOG_HEADER_BYTES = 32
_LOG_MAGIC = {0x377F0682: "<6I", 0x377F0683: ">6I"}
LAST_VERSION = 2**31 - 1

# The files beside it while it is open. Without the log commits are lost; without the log's index several processes
# would write to the log at the same time.
_PARTS = {"-wal": "log", "-shm": "log's index"}

# Reads bytes that are not UTF-8 as U+FFFD. It is slower than the driver's own decoding, which raises.
_any_text = partial(str, encoding="utf-8", errors="replace")

_Identity = tuple[int, int]

# A new file is created and closed under this lock, before anybody in this process can have it open.
_opening = threading.Lock()


@dataclass(frozen=True, slots=True)
class _Header:
    """The first page in the file itself, as it was last read; newer pages may still be in the log."""

    size: int
    changes: int
    version: int


class Unusable(sqlite3.OperationalError):
    """The file must not be opened as it is; the text says why, and what to do."""


class _Raw(sqlite3.Connection):
    """A connection that is not closed if another file took the place of its own.

    The last connection to be closed copies the log into the file and deletes the log by its name; if another database
    has that name by then, it would delete that one's log.
    """

    file: SqliteFile

    def close(self) -> None:
        if self.file.is_there():
            super().close()


class SqliteFile:
    """One database file, from the first connection of this process to the last.

    `problem` says why it must not be used any more. Once set it stays, as what a process has cached of one file must
    never be written to another.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.realpath(path)  # SQLite follows links too, and puts its log beside the file itself
        self.problem: str | None = None
        self._named = os.path.abspath(path)  # what others open by this name must be this file
        self._identity: _Identity | None = None
        self._open: weakref.WeakSet[_Raw] = weakref.WeakSet()
        self._reads_any_text = False
        # The rest is used only by the writer's thread.
        self._beside: dict[str, _Identity | None] = {}
        self._log: int | None = None
        self._log_start = b""
        self._stamp: tuple[int, int] | None = None
        self._header: _Header | None = None
        self._commits = 0

    def connect(self) -> sqlite3.Connection:
        """A new connection, in autocommit. Only the first one may create the file. Raises sqlite3.Error."""
        for _ in range(READ_ATTEMPTS):
            with _opening:
                if self._identity is None:
                    self._make()
                    self._refuse_second_name()
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
                if self._reads_any_text:
                    raw.text_factory = _any_text
            after = self._stat()
            if before == after:
                break
        if self._identity is None:
            self._identity = after
        if before != after or after != self._identity:
            self.mark_unusable("was replaced by another file")
        if self.problem is not None:
            raise sqlite3.OperationalError(self.problem)
        return raw

    def read_any_text(self) -> bool:
        """From now on also read text that is not UTF-8, which Keyrack never writes. False if that was set already.

        The seal of a row with such text does not hold, so it does not count; all other rows are read as before.
        """
        with _opening:
            if self._reads_any_text:
                return False
            self._reads_any_text = True
            for raw in tuple(self._open):
                raw.text_factory = _any_text
        log.warning("The database file %s holds text that is no UTF-8, which Keyrack did not write.", self.path)
        return True

    def is_there(self) -> bool:
        """Whether the file that was opened is still in its place; asked before a connection is closed."""
        if self.problem is None:
            try:
                self._check_place()
            except OSError:
                pass  # an error of stat does not say that the file is gone
        return self.problem is None

    def watch(self, raw: sqlite3.Connection) -> None:
        """Take the file as it is now for the right one; raw: a connection that stays open, which check() uses."""
        raw.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()  # which opens the log, where there is none yet
        self._beside = {part: _identity_of(f"{self.path}{part}") for part in _PARTS}
        self._stamp = None
        self.unwatch()
        with suppress(OSError):
            # SQLite locks nothing in its log, so that one may be opened and closed.
            self._log = os.open(f"{self.path}-wal", os.O_RDONLY | os.O_CLOEXEC)

    def unwatch(self) -> None:
        """Close what watch() opened."""
        log, self._log = self._log, None
        if log is not None:
            os.close(log)

    def check(self, raw: sqlite3.Connection) -> bool:
        """Whether the file is still the one that was opened, and seems intact; takes microseconds.

        raw: the connection given to watch(). While it is open nobody may remove or replace the log either.
        """
        if self.problem is not None:
            return False
        try:
            now = self._check_place()
        except OSError:
            return self.problem is None  # an error of stat does not say that the file is gone
        if now is None or self.problem is not None:
            return False
        for part, known in self._beside.items():
            if known is not None and _identity_of(f"{self.path}{part}") != known:
                return self.mark_unusable(f"has lost its {_PARTS[part]} ({part}), which was removed or replaced")
        if not self._has_log():
            return self.mark_unusable("has lost the beginning of its log (-wal), which was overwritten")
        stamp = (now.st_mtime_ns, now.st_size)
        if stamp == self._stamp:
            return True
        # A checkpoint copied the log's pages into the file, or somebody wrote to it past SQLite.
        words: str | None = None
        for _ in range(READ_ATTEMPTS):
            words = self._read_header(raw)
            if words is None:
                self._stamp = stamp
                return True
            time.sleep(RETRY_PAUSE_SECONDS)
        return self.mark_unusable(words or "")

    def mark_unusable(self, words: str) -> bool:
        """From now on nothing is read or written; logs it once. Always False."""
        if self.problem is None:
            self.problem = (
                f"The database file {self.path} {words} while Keyrack had it open, so nothing is read or written "
                f"any more. Stop Keyrack, put the right file in its place (with no {os.path.basename(self.path)}-wal "
                "and -shm of another one beside it), and start again."
            )
            log.error(self.problem)
            for raw in tuple(self._open):
                # It must not be closed even as this process ends: see _Raw.
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(raw))
        return False

    def mark_damaged(self, error: BaseException) -> None:
        """SQLite reported that the file is damaged, or no database."""
        self.mark_unusable(f"turned out to be damaged ({error})")

    def _make(self) -> None:
        """Create the file if there is none, for its owner only, as it holds secrets; -wal and -shm get its mode."""
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            return
        except OSError as error:
            raise sqlite3.OperationalError(f"cannot open {self.path}: {error.strerror}") from error

    def _refuse_second_name(self) -> None:
        """Raise Unusable if the file has another name (hard link), as SQLite keeps a log for each name."""
        names = self._stat_path().st_nlink
        if names > 1:
            raise Unusable(
                f"The database file {self.path} has {names} names (hard links); with a log for each of them what one "
                f"process writes is lost or damaged by another. Remove the others (find / -samefile {self.path}); "
                "a copy is made by `keyrack backup`."
            )

    def count(self, raw: sqlite3.Connection) -> int:
        """How many commits the database counts, as raw sees it; 0 if they became fewer, after mark_unusable()."""
        commits = int(raw.execute("PRAGMA user_version").fetchone()[0])
        if commits < self._commits:
            self.mark_unusable("went back to what it was before")
            return 0
        return commits

    def counted(self, commits: int) -> None:
        """Remember that so many commits are on the disk."""
        self._commits = max(self._commits, commits)

    def _check_place(self) -> os.stat_result | None:
        try:
            now = os.stat(self._named)
        except FileNotFoundError:
            self.mark_unusable("was removed")
            return None
        if self._identity not in (None, (now.st_dev, now.st_ino)):
            self.mark_unusable("was replaced by another file")
        return now

    def _stat(self) -> _Identity:
        now = self._stat_path()
        return now.st_dev, now.st_ino

    def _stat_path(self) -> os.stat_result:
        try:
            return os.stat(self.path)
        except OSError as error:
            if self._identity is not None and isinstance(error, FileNotFoundError):
                self.mark_unusable("was removed")
            raise sqlite3.OperationalError(f"cannot open {self.path}: {error.strerror}") from error

    def _read_header(self, raw: sqlite3.Connection) -> str | None:
        """Compare the file's first page with what it said before. Answers what is wrong with it, None for nothing.

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

    def _has_log(self) -> bool:
        """Whether the log begins with a valid header: after a crash SQLite reads nothing from a log without one."""
        for _ in range(READ_ATTEMPTS):
            start = b"" if self._log is None else os.pread(self._log, _LOG_HEADER_BYTES, 0)
            # An empty one gets its beginning with the next commit.
            if start in (b"", self._log_start) or _is_log(start):
                self._log_start = start
                return True
            time.sleep(RETRY_PAUSE_SECONDS)
        return False

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


def count_commit(raw: sqlite3.Connection, commits: int) -> int:
    """Inside a transaction that changed something: raise the number that check() compares; answers the new number.

    It starts anywhere, so that two databases seldom have numbers near each other. commits: the number until now.
    """
    following = commits + 1 if commits > 0 else 1 + int.from_bytes(os.urandom(4), "big") % 2**30
    following = min(following, LAST_VERSION)
    raw.execute(f"PRAGMA user_version = {following}")
    return following


def _is_log(start: bytes) -> bool:
    if len(start) < _LOG_HEADER_BYTES:
        return False
    words = _LOG_MAGIC.get(_number(start, 0))
    if words is None:
        return False
    first = second = 0
    numbers = struct.unpack(words, start[:24])
    for one, other in zip(numbers[::2], numbers[1::2], strict=True):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + other + first) & 0xFFFFFFFF
    return struct.unpack(">2I", start[24:]) == (first, second)


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
