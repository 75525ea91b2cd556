"""Removes one key from a file that the agent found on this host, and keeps every other byte of the file.

Somebody may write to the file meanwhile. The new file is exchanged for the old one in one step, and then the old one is
read again. A line that was appended to it since is appended to the new file. Where another file had taken its place,
that one is put back, and all begins again. The agent waits up to _WRITERS_SECONDS for programs that still have the old
file open to write. What they write later is lost, as with any editor.
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
from keyrack.agent.system.folder import OF_THE_BYTES, unsafe_because, why_not
from keyrack.agent.system.mounts import may_hang
from keyrack.protocol.host_document import KeyRemoval
from keyrack.protocol.report import AUTHORITY, EVERYBODY, KEY, ReportedKey, as_reported
from keyrack.ssh import authorized_keys
from keyrack.ssh.line_key import USUAL_RULES, SshdRules

LARGEST = 8 * 1024 * 1024
_TRIES = 20
_SETTLE_SECONDS = 0.05  # to wait for a writer where the system cannot say whether there is one
_WRITERS_SECONDS = 2.0  # to wait at most for a writer that is known to be there
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_RIGHTS = "system.posix_acl_access"
_OWNERS, _DONE = b"owner's", b"done"


class _Content(NamedTuple):
    data: bytes
    status: os.stat_result


class _ChangedMeanwhile(Exception):
    """Somebody changed or replaced the file meanwhile; read it again."""


def remove_keys(
    removals: Iterable[KeyRemoval], reported_keys: Sequence[ReportedKey], rules: SshdRules = USUAL_RULES
) -> List[str]:
    """Remove the keys that a document names, of those that this agent's own scan found (reported_keys). Answers what
    went wrong, in words.

    No path but those of the scan is touched, whatever the document says. rules: those of the scan.
    """
    problems = []
    for removal in removals:
        found = {
            one.username: one
            for one in reported_keys
            if (as_reported(one.path), one.fingerprint) == (removal.path, removal.fingerprint)
            and one.kind in (KEY, AUTHORITY)
        }
        problems += _problem_of_all(found.values(), rules)
    return problems


def _problem_of_all(found: Iterable[ReportedKey], rules: SshdRules) -> List[str]:
    """Remove a key from its file as one of the accounts whose file that is: a home may be that of several, and only its
    owner may write there. Answers in words what went wrong with the first where none of them could.
    """
    problems: List[str] = []
    for one in found:
        try:
            _rewrite(one, rules)
        except (OSError, KeyError, as_account.AccountProblem) as problem:
            words = problem.strerror if isinstance(problem, OSError) else str(problem)
            problems.append(f"the key {one.fingerprint} could not be taken out of {one.path}: {words}")
        else:
            return []
    return problems[:1]


def without(data: bytes, fingerprint: str, rules: SshdRules = USUAL_RULES) -> bytes:
    """A file's bytes without the lines of one key, as an sshd with these rules reads lines."""
    gone = {line.line_number for line in authorized_keys.each_line(data, rules) if line.fingerprint == fingerprint}
    # Each line with its own newline: if the last line goes, the one before keeps its newline for what is appended.
    lines = data.split(b"\n")
    ended = [line + b"\n" for line in lines[:-1]] + lines[-1:]
    return b"".join(line for number, line in enumerate(ended, start=1) if number not in gone)


def _rewrite(one: ReportedKey, rules: SshdRules) -> None:
    ours = pwd.getpwuid(os.geteuid())
    # Even stat on the folder may hang, so a child process does it; and not as root where the file system may hang, as
    # that would keep root's own files waiting.
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
    """As root: remove the key if only root can write to the folder; _OWNERS where the owner's rights are needed."""
    try:
        if unsafe_because(os.path.dirname(path)) is not None or unsafe_because(os.path.dirname(os.path.realpath(path))):
            return _OWNERS
    except PermissionError:
        return _OWNERS  # a file system that does not trust root
    return rewrite(path, fingerprint, rules)


def rewrite(path: str, fingerprint: str, rules: SshdRules = USUAL_RULES) -> bytes:
    """Remove a key from a file. Raises OSError or AccountProblem, and then nothing has changed."""
    real = os.path.realpath(path)
    for _ in range(_TRIES):
        with contextlib.suppress(_ChangedMeanwhile):
            try:
                _rewrite_once(real, fingerprint, rules)
            except PermissionError as error:
                raise as_account.AccountProblem(why_not(real, error)) from None
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
        # Without this a power cut could bring the old file back.
        _sync(os.path.dirname(real))
    finally:
        os.close(old)


def _write_like(path: str, data: bytes, old: int, status: os.stat_result) -> None:
    """Write a new file with the owner, mode and extended attributes of the old one (a descriptor), and sync it."""
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
    """Copy extended attributes: ACLs, SELinux labels and such. Where the ACL cannot be copied, take the group's rights
    away: with an ACL the group bits of the mode are its mask, and without it they would let the group in.
    """
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
            # A label is inherited from the folder then. The key must go even if an attribute cannot be copied.
            if name == _RIGHTS:
                os.fchmod(new, mode & ~stat.S_IRWXG)


def _put_back(replaced: str, real: str, made: int) -> None:
    """Undo the exchange; made: the new file's inode. If yet another file was put there meanwhile, exchange again."""
    for _ in range(_TRIES):
        if not _exchange(replaced, real) or os.stat(replaced, follow_symlinks=False).st_ino == made:
            return


def _keep_what_came(
    old: int, before: bytes, real: str, replaced: Optional[str], gone: Tuple[str, SshdRules], made: int
) -> None:
    """After the exchange: append to the new file what was appended to the old one since it was read.

    old: descriptor of the old file; before: its bytes as they were read; replaced: the old file's name now, None where
    it has none; gone: the removed key's fingerprint and the rules; made: the new file's inode. Raises _ChangedMeanwhile
    where the exchange was undone.
    """
    if replaced is not None:
        there, mine = os.stat(replaced, follow_symlinks=False), os.fstat(old)
        if (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino):
            # Somebody put another file there just before the exchange: put it back, and begin again.
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
    """Wait until nobody has a file open to write, _WRITERS_SECONDS at most. No new writer can open it: its name is
    another file's now.

    The system grants a read lease only while there is no writer (fcntl(2)). Where it grants none at all, wait
    _SETTLE_SECONDS.
    """
    until = time.monotonic() + _WRITERS_SECONDS
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)  # the signal of a broken lease: ignored by default
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
    """Sync a folder's names, so that the new file survives a power cut. An error is ignored: the key is removed."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _exchange(one: str, other: str) -> bool:
    """Exchange the names of two files in one step (renameat2(2)); where the system cannot, rename `one` to `other`.

    Answers whether they were exchanged: then the other file still exists, under the name of the first.
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
            # The status of before the read: of it only the owner, mode and inode are used.
            return _Content(b"".join(pieces), status)
        pieces.append(piece)
        at += len(piece)
    raise as_account.AccountProblem("it is too large")
