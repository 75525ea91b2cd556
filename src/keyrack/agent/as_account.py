"""Does a small piece of work as another account of this host, in a process that can never be root again.

Whoever owns a folder decides what lies in it, so root neither writes there nor follows its links.
"""

from __future__ import annotations

import os
import pwd
import signal
import threading
from typing import Callable, List, NoReturn

SECONDS = 20
_LARGEST_ANSWER = 4 * 1024 * 1024
_FORKING = threading.Lock()  # so that no child holds the pipe of another, whose end would then not be seen


class AccountProblem(Exception):
    """The work was not done; the words say why."""


def run(account: pwd.struct_passwd, work: Callable[[], bytes], *, seconds: int = SECONDS) -> bytes:
    """What `work` answers when `account` does it: at most 4 MiB, within whole `seconds`. Raises AccountProblem.

    As another account than root, only one's own work can be done.
    """
    ours = os.geteuid()
    if account.pw_uid == ours:
        try:
            return work()
        except OSError as error:
            raise AccountProblem(_words(error)) from None
    if ours != 0:
        raise AccountProblem(f"only root can do this as {account.pw_name}")
    # Asked before the fork: a child of one thread must not wait for what another one holds.
    groups = os.getgrouplist(account.pw_name, account.pw_gid)
    with _FORKING:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            _child(account, groups, work, reading, writing, seconds)
        os.close(writing)
    try:
        answer = _read(reading)
    finally:
        os.close(reading)
        # Its own alarm ends it; what it may have started ends with the closed pipe or by itself.
        _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
        return answer
    words = answer.decode("utf-8", "replace")[:300] if os.WIFEXITED(status) else f"no end within {seconds} seconds"
    raise AccountProblem(words or "it failed")


def _child(
    account: pwd.struct_passwd,
    groups: List[int],
    work: Callable[[], bytes],
    reading: int,
    writing: int,
    seconds: int,
) -> NoReturn:
    """Give up every right of root, for good, and only then work."""
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(seconds)
        os.close(reading)
        os.setgroups(groups)
        os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
        os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
        os.umask(0o077)
        os.chdir("/")
        os.environ.clear()
        os.environ.update({"PATH": os.defpath, "HOME": account.pw_dir, "LC_ALL": "C"})
        answer = work()
        code = 0
    except BaseException as error:
        answer = (_words(error) if isinstance(error, OSError) else str(error)).encode("utf-8", "replace")
    try:
        view = memoryview(answer[:_LARGEST_ANSWER])
        while view:
            view = view[os.write(writing, view) :]
    except OSError:
        code = 1
    # Not sys.exit: nothing that the parent prepared for its own end may run here.
    os._exit(code)


def _read(descriptor: int) -> bytes:
    pieces: List[bytes] = []
    while True:
        piece = os.read(descriptor, 1 << 16)
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)


def _words(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
