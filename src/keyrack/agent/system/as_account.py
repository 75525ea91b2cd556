"""Does a small piece of work as another account of this host, in a process that can never be root again.

Whoever owns a folder decides what lies in it, so root neither writes there nor follows its links. Whoever runs a
process can stop it, so nobody waits for this one longer than was said: its parent kills it, and does not wait for one
that even then does not end (on a file system that does not answer); until it did, nothing more is begun for that
account.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import select
import signal
import threading
import time
from typing import Callable, Dict, List, NoReturn, Optional, Tuple

SECONDS = 5
MOST_LEFT = 8  # processes that do not end; with so many, nothing more is begun that may not end either
_MOST_AT_ALL = 2 * MOST_LEFT  # with so many, nothing is begun for anybody
REAP_SECONDS = 0.5
NOT_ENDED = "what was begun for this account before has not ended yet"
TOO_MUCH = "too much of what was begun before has not ended yet"
_LARGEST_ANSWER = 4 * 1024 * 1024
_DONE, _FAILED = b"+", b"-"
_FORKING = threading.Lock()  # so that no child holds the pipe of another
_LEFT: Dict[int, int] = {}  # a process that did not end when it was killed, and its account's number


class AccountProblem(Exception):
    """The work was not done; the words say why."""


class NoEnd(AccountProblem):
    """The work did not end in time."""


class Child:
    """A process that does some work and writes its answer; `account` is the number of the one it works as just now, or
    another (below 0) for what keeps no account waiting.

    Raises AccountProblem where too much of before has not ended yet, or this host can begin nothing more.
    """

    def __init__(self, account: int, work: Callable[[int], None]) -> None:
        """work: gets the descriptor to write to, and never returns into our own affairs: the process ends after it."""
        self.account = account
        reap()
        if account in _LEFT.values():
            raise AccountProblem(NOT_ENDED)
        if len(_LEFT) >= _MOST_AT_ALL:
            raise AccountProblem(TOO_MUCH)
        with _FORKING:
            try:
                self.reading, writing = os.pipe()
            except OSError as problem:
                raise AccountProblem(f"nothing could be begun: {problem.strerror}") from None
            try:
                self._pid = os.fork()
            except OSError as problem:
                # Whoever has an account may have used up all processes there may be.
                os.close(self.reading)
                os.close(writing)
                raise AccountProblem(f"no process could be begun: {problem.strerror}") from None
            if self._pid == 0:
                _work(work, writing)
            os.close(writing)

    def read(self, deadline: float, most: int = 1 << 16) -> Optional[bytes]:
        """What it wrote; empty at its end, None when time.monotonic() is at the deadline before."""
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            ready = select.poll()
            ready.register(self.reading, select.POLLIN)
            if ready.poll(min(left, 60.0) * 1000 + 1):
                return os.read(self.reading, most)

    def end(self) -> None:
        """Kill it, whatever it does. It is waited for only for a moment."""
        os.close(self.reading)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        deadline = time.monotonic() + REAP_SECONDS
        while not _is_reaped(self._pid):
            if time.monotonic() >= deadline:
                _LEFT[self._pid] = self.account
                return
            time.sleep(0.001)


def run(account: pwd.struct_passwd, work: Callable[[], bytes], *, seconds: float = SECONDS) -> bytes:
    """What `work` answers when `account` does it: at most 4 MiB, within `seconds`. Raises AccountProblem.

    As another account than root, only one's own work can be done.
    """
    if account.pw_uid != os.geteuid() and os.geteuid() != 0:
        raise AccountProblem(f"only root can do this as {account.pw_name}")
    # Asked before the fork: a child of one thread must not wait for what another one holds.
    groups = os.getgrouplist(account.pw_name, account.pw_gid)
    deadline = time.monotonic() + seconds
    child = Child(account.pw_uid, lambda writing: _as_account(account, groups, work, writing))
    try:
        answer = _read_all(child, deadline)
    finally:
        child.end()
    if answer is None:
        raise NoEnd(f"no end within {seconds:g} seconds")
    # A process that was ended from outside says nothing at its end.
    if answer.endswith(_DONE):
        return answer[:-1]
    raise AccountProblem(answer[:-1].decode("utf-8", "replace")[:300] or "it failed")


def reap() -> None:
    """Let go of killed processes that have ended since."""
    for pid in list(_LEFT):
        if _is_reaped(pid):
            _LEFT.pop(pid, None)


def words(error: OSError) -> str:
    """What went wrong, and with which file."""
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _is_reaped(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def _read_all(child: Child, deadline: float) -> Optional[bytes]:
    pieces: List[bytes] = []
    size = 0
    while size <= _LARGEST_ANSWER:
        piece = child.read(deadline)
        if piece is None:
            return None
        if not piece:
            break
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)


def _work(work: Callable[[int], None], writing: int) -> NoReturn:
    """All that happens in the child."""
    global _FORKING
    try:
        _FORKING = threading.Lock()  # ours is held just now, and nobody lets go of it here
        _LEFT.clear()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        # A process that does not end must not keep our lock, or the service's connection.
        _close_all_but(writing)
        work(writing)
    except BaseException:  # nothing of the parent's may run here, and there is nobody to tell
        os._exit(1)
    # Not sys.exit: nothing that the parent prepared for its own end may run here.
    os._exit(0)


def _close_all_but(kept: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    try:
        numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        numbers = list(range(1024))
    for number in numbers:
        if number > 2 and number != kept:
            with contextlib.suppress(OSError):
                os.close(number)


def _as_account(account: pwd.struct_passwd, groups: List[int], work: Callable[[], bytes], writing: int) -> None:
    """Give up every right of root, for good, and only then work."""
    answer, mark = b"", _FAILED
    try:
        if os.geteuid() == 0:
            os.setgroups(groups)
            os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
            os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
        os.umask(0o077)
        os.chdir("/")
        os.environ.clear()
        os.environ.update({"PATH": os.defpath, "HOME": account.pw_dir, "LC_ALL": "C"})
        answer, mark = work()[:_LARGEST_ANSWER], _DONE
    except BaseException as error:  # a child has nobody to raise to: its parent hears it
        answer = (words(error) if isinstance(error, OSError) else str(error)).encode("utf-8", "replace")
    write_all(writing, answer + mark)


def left() -> Tuple[int, ...]:
    """The numbers of the accounts for which something has not ended."""
    return tuple(_LEFT.values())
