"""Takes one key out of a file that was found on this host, and leaves every other byte of it as it is.

Somebody may write to the file meanwhile. What is put in its place is exchanged for it in one step, and what then turns
out to have been there since is kept: a line that was appended is appended again, and where another file had taken its
place, that one is put back. Whoever opened the old file to write is waited for, a while. What is written into it after
that is lost; so it would be with every editor.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import pwd
import signal
import stat
import time
from typing import Iterable, List, NamedTuple, Optional, Sequence, Tuple

from keyrack.agent.system import as_account
from keyrack.agent.system.folder import OF_THE_BYTES, unsafe_because
from keyrack.agent.system.mounts import may_hang
from keyrack.protocol.host_document import KeyRemoval
from keyrack.protocol.report import AUTHORITY, EVERYBODY, KEY, ReportedKey, as_told
from keyrack.ssh import authorized_keys
from keyrack.ssh.line_key import USUAL_RULES, SshdRules

LARGEST = 8 * 1024 * 1024
_TRIES = 20
_SETTLE_SECONDS = (
    0.05  # for a program that opened the old file a moment ago, where it is not known whether there is one
)
_WRITERS_SECONDS = 2.0  # for those of which that is known
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_RIGHTS = "system.posix_acl_access"
_OWNERS, _DONE = b"owner's", b"done"


class _Content(NamedTuple):
    data: bytes
    status: os.stat_result


class _ChangedMeanwhile(Exception):
    """Somebody wrote another file there; look again."""


def remove_keys(
    removals: Iterable[KeyRemoval], reported_keys: Sequence[ReportedKey], rules: SshdRules = USUAL_RULES
) -> List[str]:
    """Take away what a document names, as far as it was found by this agent itself; answers what went wrong.

    No other path is touched, whatever the document says. rules: by which it was found.
    """
    problems = []
    for removal in removals:
        for one in reported_keys:
            if (as_told(one.path), one.fingerprint) == (removal.path, removal.fingerprint) and one.kind in (
                KEY,
                AUTHORITY,
            ):
                try:
                    _rewrite(one, rules)
                except (OSError, KeyError, as_account.AccountProblem) as problem:
                    words = problem.strerror if isinstance(problem, OSError) else str(problem)
                    problems.append(f"the key {one.fingerprint} could not be taken out of {one.path}: {words}")
                break
    return problems


def without(data: bytes, fingerprint: str, rules: SshdRules = USUAL_RULES) -> bytes:
    """The file without the lines of one key, as an sshd with these rules reads them."""
    gone = {line.line_number for line in authorized_keys.read(data, rules) if line.fingerprint == fingerprint}
    # Each with its own end, so that the line before one that has none keeps its own: what is appended begins anew.
    lines = data.split(b"\n")
    ended = [line + b"\n" for line in lines[:-1]] + lines[-1:]
    return b"".join(line for number, line in enumerate(ended, start=1) if number not in gone)


def _rewrite(one: ReportedKey, rules: SshdRules) -> None:
    ours = pwd.getpwuid(os.geteuid())
    # Even to look whose folder it is may take for ever, so that is asked in a process of its own. Where it may, root's
    # own files are not kept waiting by it.
    is_near = one.username == EVERYBODY or not may_hang(one.path)
    if is_near and as_account.run(ours, lambda: _rewrite_where_safe(one.path, one.fingerprint, rules)) == _DONE:
        return
    if one.username == EVERYBODY:
        raise as_account.AccountProblem("others than root can write there; take it away by hand")
    account = pwd.getpwnam(one.username)
    if account.pw_uid == ours.pw_uid and ours.pw_uid == 0:
        raise as_account.AccountProblem("others than root can write there; take it away by hand")
    # Invariant 6: not as root in a folder that a user owns.
    as_account.run(account, lambda: rewrite(one.path, one.fingerprint, rules))


def _rewrite_where_safe(path: str, fingerprint: str, rules: SshdRules) -> bytes:
    """Where nobody but us can write."""
    try:
        if unsafe_because(os.path.dirname(path)) is not None or unsafe_because(os.path.dirname(os.path.realpath(path))):
            return _OWNERS
    except PermissionError:
        return _OWNERS  # a file system that does not trust root
    return rewrite(path, fingerprint, rules)


def rewrite(path: str, fingerprint: str, rules: SshdRules = USUAL_RULES) -> bytes:
    """Take a key out of a file. Raises OSError or AccountProblem, and then nothing has changed."""
    real = os.path.realpath(path)
    for _ in range(_TRIES):
        with contextlib.suppress(_ChangedMeanwhile):
            _rewrite_once(real, fingerprint, rules)
            return _DONE
    raise as_account.AccountProblem("somebody else goes on writing to it")


def _rewrite_once(real: str, fingerprint: str, rules: SshdRules) -> None:
    old = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        before = _read(old)
        wanted = without(before.data, fingerprint, rules)
        if wanted == before.data:
            return
        temporary = f"{real}.keyrack-{os.urandom(8).hex()}"
        try:
            _write_like(temporary, wanted, old, before.status)
            now = os.stat(real, follow_symlinks=False)
            if (now.st_dev, now.st_ino) != (before.status.st_dev, before.status.st_ino) or _read(
                old
            ).data != before.data:
                raise _ChangedMeanwhile
            made = os.stat(temporary, follow_symlinks=False).st_ino
            exchanged = _exchange(temporary, real)
            _keep_what_came(old, before.data, real, temporary if exchanged else None, (fingerprint, rules), made)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        # Only then is it true that the key is gone: after a power cut the old file would be there again.
        _sync(os.path.dirname(real))
    finally:
        os.close(old)


def _write_like(path: str, data: bytes, old: int, status: os.stat_result) -> None:
    """A new file with the owner, the mode and what else is said of another, before anybody can find it under that
    one's name.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        as_account.write_all(descriptor, data)
        made = os.fstat(descriptor)
        if (made.st_uid, made.st_gid) != (status.st_uid, status.st_gid):
            os.fchown(descriptor, status.st_uid, status.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
        _copy_attributes(old, descriptor, stat.S_IMODE(status.st_mode))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copy_attributes(old: int, new: int, mode: int) -> None:
    """Rights of single accounts, labels and such. Without the former, what the mode says of the group is none of it."""
    if not hasattr(os, "listxattr"):
        return
    try:
        names = set(os.listxattr(old)) - OF_THE_BYTES
    except OSError:
        return  # a file system that has none
    for name in sorted(names):
        try:
            os.setxattr(new, name, os.getxattr(old, name))
        except OSError:
            # A label is its folder's then. A key that must go is not kept for what cannot be copied.
            if name == _RIGHTS:
                os.fchmod(new, mode & ~stat.S_IRWXG)


def _put_back(replaced: str, real: str, made: int) -> None:
    """Undo the exchange; made: our file's inode. A file that somebody put there since goes back in its turn."""
    for _ in range(_TRIES):
        if not _exchange(replaced, real) or os.stat(replaced, follow_symlinks=False).st_ino == made:
            return


def _keep_what_came(
    old: int, before: bytes, real: str, replaced: Optional[str], gone: Tuple[str, SshdRules], made: int
) -> None:
    """After the exchange: what was written to the old file since it was read goes into the new one."""
    if replaced is not None:
        there, mine = os.stat(replaced, follow_symlinks=False), os.fstat(old)
        if (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino):
            # Somebody put another file there in the last moment: it goes back, and is looked at again.
            _put_back(replaced, real, made)
            raise _ChangedMeanwhile
    kept = len(before)
    for waits in (False, True):
        if waits:
            _wait_for_writers(old)
        data = _read(old).data
        if data[:kept] != before[:kept] and replaced is not None:
            _put_back(replaced, real, made)
            raise _ChangedMeanwhile
        if len(data) > kept:
            descriptor = os.open(real, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                as_account.write_all(descriptor, without(data[kept:], *gone))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            before, kept = data, len(data)


def _wait_for_writers(descriptor: int) -> None:
    """Until nobody has a file open to write, or some seconds are over; it has no name any more that others open it by.

    A lease to read is given while there is no writer (fcntl(2)). Where none can be had, a moment must do.
    """
    until = time.monotonic() + _WRITERS_SECONDS
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)  # that it is broken is of no interest
        while True:
            try:
                fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
                fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
                return
            except BlockingIOError:
                if time.monotonic() >= until:
                    return
            time.sleep(_SETTLE_SECONDS)
    except (AttributeError, OSError):
        time.sleep(_SETTLE_SECONDS)


def _sync(folder: str) -> None:
    """Make what has which name there last. Where that cannot be asked for, the key is out of the file all the same."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _exchange(one: str, other: str) -> bool:
    """Give two files each other's name in one step (renameat2(2)); where that cannot be, `one` takes the other's name.

    Answers whether the other file is still there, under the name of the first.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is not None:
        names = os.fsencode(one), os.fsencode(other)
        if rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], ctypes.c_uint(_RENAME_EXCHANGE)) == 0:
            return True
    os.rename(one, other)
    return False


def _read(descriptor: int) -> _Content:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise as_account.AccountProblem("it is not a regular file")
    pieces: List[bytes] = []
    at = 0
    while at <= LARGEST:
        piece = os.pread(descriptor, 1 << 20, at)
        if not piece:
            # Times change with a look; what counts is whose file it is and what it holds.
            return _Content(b"".join(pieces), status)
        pieces.append(piece)
        at += len(piece)
    raise as_account.AccountProblem("it is too large")
