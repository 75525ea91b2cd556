"""Reads what sshd logged about accepted logins, from the journal or a file; it believes nothing but whole lines.

sshd writes "Accepted publickey for USER from ADDRESS port PORT ssh2: TYPE SHA256:…" once a signature was good
(auth.c, auth_log; at LogLevel INFO and above): it names the key that signed, not one that was merely offered. Where
AuthenticationMethods require several proofs, the keys that signed first stand in lines "Partial publickey for …" before
it, which sshd writes only at LogLevel VERBOSE and above.

Who may have written a line: the journal tells (_UID and _COMM come from the kernel), so only root's sshd counts. sshd's
own file (-E or -e) has only sshd's lines. Every account can write to a syslog file: a line there counts only together
with a live process of that pid and that connection (sessions.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import os
import re
import subprocess
import time
from typing import Dict, List, NamedTuple, Optional, Tuple, Union

from keyrack.agent.system import programs
from keyrack.ssh.fingerprint import PATTERN as FINGERPRINT

# In this order: a host that has one of the first files logs other things than logins to the last.
SYSLOG_FILES = ("/var/log/auth.log", "/var/log/secure", "/var/log/messages")
JOURNALS = ("/run/log/journal", "/var/log/journal")
_LONGEST_TAIL = 8 * 1024 * 1024
_READ_BYTES = 4 * 1024 * 1024
_LONGEST_LINE = 64 * 1024
_MAX_PARTIAL = 1000
_PARTIAL_SECONDS = 600.0  # few sshds let a login take longer (LoginGraceTime, by default two minutes)
_WHOLE_SECOND = 1_000_000  # in the journal's microseconds

# At the beginning of the line: other lines of sshd quote, further back, names that a client chose.
_ACCEPTED = re.compile(
    r"Accepted ([a-z/-]+) for (\S{1,64}) from ([0-9A-Fa-f.:]+)(?:%\S+)? port ([0-9]{1,5}) ssh2"
    rf"(?:: (?:([A-Z0-9-]+) ({FINGERPRINT}))?.*)?"
)
_PARTIAL = re.compile(
    r"Partial publickey for (\S{1,64}) from ([0-9A-Fa-f.:]+)(?:%\S+)? port ([0-9]{1,5}) ssh2: "
    rf"[A-Z0-9-]+ ({FINGERPRINT})"
)
_LOGIN_WORDS = (b"Accepted ", b"Partial ")
_AUTHORITY = re.compile(rf".* CA [A-Z0-9-]+ ({FINGERPRINT})(?:, .*)?$")
_SYSLOG = re.compile(
    r"(?:[A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8}|[0-9]{4}-[0-9]{2}-[0-9]{2}T\S+) \S+ "
    # busybox's syslogd names facility and level.
    r"(?:[a-z0-9]+\.[a-z]+ )?sshd(?:-session)?\[([0-9]+)\]: (.*)"
)


class LoggedLogin(NamedTuple):
    """An accepted login. fingerprint: of the key that signed, empty where no plain key did; pid: of the sshd
    process that accepted it, 0 where the log does not say; at: seconds since 1970; sure: only sshd can have written the
    line; certified: for a certificate, the fingerprints of its key and of its authority's key; first: fingerprints of
    the keys that signed before the last proof.
    """

    user: str
    address: str
    port: int
    fingerprint: str
    pid: int
    at: float
    sure: bool = False
    certified: Tuple[str, ...] = ()
    first: Tuple[str, ...] = ()


class LogPosition(NamedTuple):
    """How far a log was read: the inode and offset of a file; for the journal, offset is a time in microseconds."""

    inode: int = 0
    offset: int = 0


def login_of(message: str, pid: int, at: float) -> Optional[LoggedLogin]:
    """The accepted login that a message of sshd reports, or None."""
    match = _ACCEPTED.fullmatch(message)
    if match is None:
        return None
    method, user, address, port, key_type, fingerprint = match.groups()
    if method != "publickey" or not fingerprint:
        return LoggedLogin(user, address, int(port), "", pid, at)
    if not key_type.endswith("-CERT"):
        return LoggedLogin(user, address, int(port), fingerprint, pid, at)
    # The authority decides whose key it is. Its fingerprint stands last, behind text that it chose itself (the key id).
    signed = _AUTHORITY.match(message)
    certified = (fingerprint, *(signed.groups() if signed else ()))
    return LoggedLogin(user, address, int(port), "", pid, at, certified=certified)


class FirstProofs:
    """Keys that signed first, of connections that still need another proof; they are added to the accepted login."""

    def __init__(self) -> None:
        self._waiting: Dict[Tuple[str, str, int, int], Tuple[float, Tuple[str, ...]]] = {}

    def read(self, message: str, pid: int, at: float) -> Optional[LoggedLogin]:
        """The accepted login that a message of sshd reports, with its first keys, or None."""
        partial = _PARTIAL.fullmatch(message)
        if partial is not None:
            user, address, port, fingerprint = partial.groups()
            connection = (user, address, int(port), pid)
            _, before = self._waiting.pop(connection, (at, ()))
            self._waiting[connection] = at, (*before, fingerprint)
            if len(self._waiting) > _MAX_PARTIAL:
                del self._waiting[next(iter(self._waiting))]
            return None
        login = login_of(message, pid, at)
        if login is None:
            return None
        since, first = self._waiting.pop((login.user, login.address, login.port, pid), (at, ()))
        # Older lines are of another connection from that port, which broke off.
        if not first or at - since > _PARTIAL_SECONDS:
            return login
        if login.fingerprint or login.certified:
            return login._replace(first=first)
        # The last proof was a password or a code: report the key, which is what Keyrack can take away.
        return login._replace(fingerprint=first[-1], first=first[:-1])


class FileLog:
    """A file that sshd or syslog writes, followed over rotation, from a position that mark() answered."""

    def __init__(self, path: str, place: LogPosition) -> None:
        self.path = path
        self.place = place
        self._descriptor: Optional[int] = None
        self._rest = b""
        self._proofs = FirstProofs()

    def read(self) -> List[LoggedLogin]:
        """The logins logged since the last call; none while there is no file."""
        logins = self._more()
        if self._was_rotated():
            logins += self._more()
            self.close()
            logins += self._more()
        return logins

    def mark(self) -> LogPosition:
        """How far whole lines were read."""
        return self.place._replace(offset=self.place.offset - len(self._rest))

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self._rest = b""

    def _more(self) -> List[LoggedLogin]:
        try:
            if self._descriptor is None and not self._open():
                return []
            assert self._descriptor is not None
            size = os.fstat(self._descriptor).st_size
            if size == self.place.offset:
                return []
            if size < self.place.offset:  # emptied in place
                self.place, self._rest = self.place._replace(offset=0), b""
            data = os.pread(self._descriptor, min(size - self.place.offset, _READ_BYTES), self.place.offset)
        except OSError:
            self.close()
            return []
        self.place = self.place._replace(offset=self.place.offset + len(data))
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()[-_LONGEST_LINE:]
        now = time.time()
        texts = (line.decode("utf-8", "replace").rstrip("\r") for line in lines if _may_report_login(line))
        logins = (self._line(text, now) for text in texts)
        own = not is_anybodys(self)
        return [
            # Lines that others may have written must not add first keys to a login.
            login._replace(sure=own and not login.pid, first=login.first if own else ())
            for login in logins
            if login is not None
        ]

    def _line(self, line: str, at: float) -> Optional[LoggedLogin]:
        match = _SYSLOG.fullmatch(line)
        if match is not None:
            return self._proofs.read(match.group(2), int(match.group(1)), at)
        return self._proofs.read(line, 0, at)

    def _open(self) -> bool:
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        status = os.fstat(descriptor)
        if status.st_ino != self.place.inode or status.st_size < self.place.offset:
            self.place = LogPosition(status.st_ino, max(0, status.st_size - _LONGEST_TAIL))
        self._descriptor = descriptor
        return True

    def _was_rotated(self) -> bool:
        try:
            return self._descriptor is not None and os.stat(self.path).st_ino != self.place.inode
        except OSError:
            return False


class Journal:
    """systemd's journal, followed by journalctl; started again should it end."""

    def __init__(self, program: str, place: LogPosition) -> None:
        self.place = place
        self._program = program
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._rest = b""
        self._proofs = FirstProofs()
        self._started = 0.0
        self._fields: Tuple[str, ...] = ("--output-fields=MESSAGE,_PID",)  # known from systemd 236 on

    def read(self) -> List[LoggedLogin]:
        """The logins logged since the last call."""
        if self._process is None and not self._start():
            return []
        assert self._process is not None
        assert self._process.stdout is not None
        pieces = [self._rest]
        while True:
            try:
                piece = os.read(self._process.stdout.fileno(), 1 << 16)
            except BlockingIOError:
                break
            if not piece:
                self._have_fewer_words()
                self.close()
                break
            pieces.append(piece)
        lines = b"".join(pieces).split(b"\n")
        self._rest = lines.pop()[-_LONGEST_LINE:]
        logins = (self._entry(line) for line in lines if _may_report_login(line))
        return [login for login in logins if login is not None]

    def mark(self) -> LogPosition:
        """How far it was read."""
        return self.place

    def close(self) -> None:
        """End journalctl."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None
        self._rest = b""

    def _have_fewer_words(self) -> None:
        """Where journalctl refused its options, start it again at once with fewer."""
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self._process.wait(1.0) > 0 and self._fields:
                self._fields, self._started = (), 0.0

    def _start(self) -> bool:
        if self._started and time.monotonic() - self._started < 10:
            return False
        self._started = time.monotonic()
        # The clock may have been set back since the last entry.
        last = min(self.place.offset // _WHOLE_SECOND, int(time.time()))
        since = f"--since=@{last}" if self.place.offset else "--boot"
        sshd = ["_UID=0", "_COMM=sshd", "+", "_UID=0", "_COMM=sshd-session"]
        given = [self._program, "--follow", "--quiet", "--no-tail", "--output=json", *self._fields, since, *sshd]
        try:
            self._process = subprocess.Popen(
                given,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=programs.ENVIRONMENT,
                cwd="/",
            )
        except OSError:
            return False
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_NONBLOCK)
        return True

    def _entry(self, line: bytes) -> Optional[LoggedLogin]:
        with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
            entry = json.loads(line)
            microseconds = int(entry["__REALTIME_TIMESTAMP"])
            if 0 <= self.place.offset - microseconds < _WHOLE_SECOND:
                return None  # read before: --since takes whole seconds. Much older entries are of a clock set back
            login = self._proofs.read(entry["MESSAGE"], int(entry["_PID"]), microseconds / 1e6)
            if login is not None:
                self.place = LogPosition(0, microseconds)
                login = login._replace(sure=True)
            return login
        return None


Log = Union[FileLog, Journal]


def find(path: Optional[str], place: LogPosition) -> Optional[Log]:
    """The log of this host's sshd: the given file, else the journal, else syslog's file, else None."""
    if path is not None:
        return FileLog(path, place)
    journalctl = programs.find("journalctl")
    if journalctl is not None and os.path.isdir("/run/systemd/system") and _is_kept():
        return Journal(journalctl, place)
    for file in SYSLOG_FILES:
        if os.path.exists(file):
            return FileLog(file, place)
    return None


def is_anybodys(log: Optional[Log]) -> bool:
    """Whether every account of the host can write lines to a log, through syslog."""
    return isinstance(log, FileLog) and log.path in SYSLOG_FILES


def _is_kept() -> bool:
    """Whether the journal stores anything: with Storage=none it only forwards to syslog."""
    return any(name for folder in JOURNALS for name in glob.glob(f"{folder}/*/*.journal"))


def _may_report_login(line: bytes) -> bool:
    return any(word in line for word in _LOGIN_WORDS)
