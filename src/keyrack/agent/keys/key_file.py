"""Reads one file of keys as sshd does, in a process with its account's rights; must trust nothing of the file.

The file's owner may change it at any moment. So it is read once, only in part where it is too large, and what is
reported of it is bounded.
"""

from __future__ import annotations

import os
import stat
import time
from typing import Any, List, NamedTuple, Optional, Tuple

from keyrack.agent.keys.account_tasks import TaskResult
from keyrack.agent.keys.ends import use_zone
from keyrack.agent.system import mounts
from keyrack.agent.system.as_account import AccountProblem
from keyrack.agent.system.folder import mount_point, unsafe_because
from keyrack.ssh import authorized_keys
from keyrack.ssh.authorized_keys import KeyLine
from keyrack.ssh.line_key import SshdRules

LARGEST = 2 * 1024 * 1024
MAX_ROWS, MAX_CHARACTERS = 1000, 400_000
MAX_UNREADABLE = 20  # unreadable lines that are reported one by one
LONGEST_KEY, LONGEST_OPTIONS, LONGEST_COMMENT = 16_384, 2000, 200
AWAY = "its home is not there now"
_FRESH_SECONDS = 2.0  # so soon after a change, a file may change again and keep the same time stamps


class KeyFileLine(NamedTuple):
    """One line. fingerprint, public_key: empty where it holds no key that can be read; authority: the key is a
    certificate authority's; problem: why sshd does not take the line, in words; ends_at: seconds since 1970.
    """

    line_number: int
    type: str
    fingerprint: str
    public_key: str
    options: str
    comment: str
    problem: str
    authority: bool
    ends_at: Optional[int]


class KnownFile(NamedTuple):
    """What is known of a file. stamp: changes whenever the file does, None where it must be read again; cut: why it may
    hold more than the rows, in words; problem: why nothing is known, in words; refused: the file exists, and sshd
    cannot read it either; mount: the mount point of its home when it last had keys, empty where it had none; unsafe:
    why sshd takes no key of it although it is readable (StrictModes), in words.
    """

    stamp: Optional[Tuple[int, ...]] = None
    rows: Tuple[KeyFileLine, ...] = ()
    cut: str = ""
    problem: str = ""
    refused: bool = False
    mount: str = ""
    unsafe: str = ""


class FileScan:
    """One scan of a file. Making it touches nothing; run() reads the file.

    everybody: the file counts for all accounts, and is read as root if only root can replace it; authorities: every key
    in it is a certificate authority's; known: the result of the last scan; home: the account's home if the file lies in
    it, else empty; strict_home: the account's home if sshd takes no file that others may change (StrictModes), else
    empty.
    """

    def __init__(
        self,
        path: str,
        rules: SshdRules,
        known: Optional[KnownFile],
        *,
        everybody: bool = False,
        authorities: bool = False,
        home: str = "",
        strict_home: str = "",
    ) -> None:
        self._path = path
        self._everybody = everybody
        self._authorities = authorities
        self._rules = rules
        self._home = home
        self._strict_home = strict_home
        self._stamp = known.stamp if known is not None else None
        self._mount = known.mount if known is not None else ""

    def run(self) -> Any:
        """What a report needs of the file, as known_after() reads it; None where there is no such file. Raises OSError
        or AccountProblem.

        Only in a child process that does nothing else: it sets the process's time zone to sshd's.
        """
        if self._rules.tz is not None:
            use_zone(self._rules.tz)
        try:
            if self._everybody and os.geteuid() == 0:
                problem = unsafe_because(self._path)
                if problem is not None:
                    raise AccountProblem(problem)
            status = os.stat(self._path)
        except (FileNotFoundError, NotADirectoryError):
            if not self._home:
                return None
            if mounts.opened_by_login(self._home):
                return {"closed": True}
            return {"away": True} if self._is_away() else None
        stamp = _stamp(status)
        if stat.S_ISDIR(status.st_mode):
            return None  # a folder is no file of keys, for sshd either
        if not stat.S_ISREG(status.st_mode):
            return {"refused": "it is not a regular file"}
        # Checked each time: folders above the file change without changing its stamp.
        unsafe = changed_by_others(self._path, self._strict_home) if self._strict_home else ""
        if self._stamp is not None and list(stamp) == list(self._stamp):
            return {"same": True, "unsafe": unsafe}
        data, stamp, cut = _read(self._path)
        rows, more = self._rows(data)
        fresh = time.time() - max(stamp[2], stamp[3]) / 1e9 < _FRESH_SECONDS
        mount = mount_point(self._home) if self._home and rows else ""
        stamped = None if fresh else stamp
        return {"stamp": stamped, "rows": rows, "cut": cut or more, "mount": mount, "unsafe": unsafe}

    def _is_away(self) -> bool:
        """Whether the home is missing, or lies on another file system than when this file had keys: a home that is not
        mounted now (such as pam_mount's or eCryptfs's before a login) leaves an empty folder.
        """
        return not os.path.isdir(self._home) or (self._mount != "" and mount_point(self._home) != self._mount)

    def _rows(self, data: bytes) -> Tuple[List[KeyFileLine], str]:
        keys: List[KeyLine] = []
        others: List[KeyLine] = []
        unreadable = 0
        for line in authorized_keys.each_line(data, self._rules):
            if line.fingerprint is not None and len(line.public_key) <= LONGEST_KEY:
                keys.append(line)
                continue
            unreadable += 1
            if unreadable <= MAX_UNREADABLE:
                others.append(line)
        keys.sort(key=lambda line: line.problem is not None)
        rows: List[KeyFileLine] = []
        size, cut = 0, ""
        for line in keys:
            row = self._row(line)
            size += len(row.public_key) + 6 * (len(row.options) + len(row.comment))
            if len(rows) >= MAX_ROWS or size > MAX_CHARACTERS:
                cut = "it holds more keys than are told of one file"
                break
            rows.append(row)
        for line in others:
            words = line.problem or "its key is too long to be told"
            rows.append(KeyFileLine(line.line_number, line.type[:64], "", "", "", "", words, False, None))
        if unreadable > MAX_UNREADABLE:
            words = f"{rows[-1].problem}; so are {unreadable - MAX_UNREADABLE} lines after it"
            rows[-1] = rows[-1]._replace(problem=words)
        return rows, cut

    def _row(self, line: KeyLine) -> KeyFileLine:
        return KeyFileLine(
            line.line_number,
            line.type,
            line.fingerprint or "",
            line.public_key,
            line.options[:LONGEST_OPTIONS],
            line.comment[:LONGEST_COMMENT],
            line.problem or "",
            self._authorities or line.authority,
            line.ends_at,
        )


def known_after(answer: TaskResult, known: Optional[KnownFile]) -> KnownFile:
    """What is known of a file after the answer of FileScan.run; what was known before where the file did not answer."""
    seen = answer.value  # of FileScan.run
    if answer.problem:
        before = known if known is not None and not answer.ended else KnownFile()
        mount = known.mount if known is not None else ""
        return before._replace(stamp=None, problem=answer.problem, refused=False, mount=mount)
    if seen is None:
        return KnownFile()
    if "closed" in seen:
        return (known or KnownFile())._replace(stamp=None, problem=AWAY)
    if "away" in seen:
        # Not mounted yet: the keys that it held may come back.
        return known._replace(stamp=None, problem=AWAY) if known is not None and known.mount else KnownFile()
    if "refused" in seen:
        return KnownFile(problem=seen["refused"], refused=True)
    if "same" in seen:
        return known._replace(problem="", refused=False, unsafe=seen["unsafe"]) if known is not None else KnownFile()
    stamp = None if seen["stamp"] is None else tuple(seen["stamp"])
    rows = tuple(KeyFileLine(*row) for row in seen["rows"])
    return KnownFile(stamp, rows, seen["cut"], mount=seen["mount"], unsafe=seen["unsafe"])


def changed_by_others(path: str, home: str) -> str:
    """Why sshd with StrictModes takes no key of a file, as its account sees it (misc.c, safe_path); empty if it does.

    Write permission of a group is ignored here: distributions differ in which groups their sshd allows to write.
    """
    real, top = os.path.realpath(path), os.path.realpath(home)
    place = real
    while True:
        try:
            status = os.stat(place)
        except OSError as error:
            return f"sshd does not take it (StrictModes): {place}: {error.strerror}"
        if status.st_uid not in (0, os.geteuid()):
            return f"sshd does not take it (StrictModes): {place} is another account's"
        if status.st_mode & stat.S_IWOTH:
            return f"sshd does not take it (StrictModes): everybody may write to {place}"
        if place == "/" or (place == top and place != real):
            return ""
        place = os.path.dirname(place)


def _read(path: str) -> Tuple[bytes, Tuple[int, ...], str]:
    # O_NONBLOCK: opening a pipe that was put there since must not wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise AccountProblem("it is not a regular file")
        data = b""
        while len(data) <= LARGEST:
            piece = os.read(descriptor, LARGEST + 1 - len(data))
            if not piece:
                return data, _stamp(status), ""
            data += piece
    finally:
        os.close(descriptor)
    whole = data[: data.rfind(b"\n", 0, LARGEST) + 1]
    return whole, _stamp(status), "it is larger than 2 MiB, and only its beginning was read"


def _stamp(status: os.stat_result) -> Tuple[int, ...]:
    return (
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_uid,
        status.st_dev,
    )
