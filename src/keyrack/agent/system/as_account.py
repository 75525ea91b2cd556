"""Does a small piece of work as another account of this host, in a child process that can never be root again.

The owner of a folder controls what is in it, so root neither writes there nor follows its links. An account can stop
its processes, so the parent waits only for a given time and then kills the child. A child that does not end even then
(on a file system that does not answer) is left, and nothing more is started for that account until it has ended.
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
MAX_LEFT = 8  # with so many children that do not end, no more work is started that may hang
_MAX_LEFT_AT_ALL = 2 * MAX_LEFT  # with so many, no more work is started at all
REAP_SECONDS = 0.5
NOT_ENDED = "what was begun for this account before has not ended yet"
TOO_MUCH = "too much of what was begun before has not ended yet"
_LARGEST_ANSWER = 4 * 1024 * 1024
_DONE, _FAILED = b"+", b"-"
_FORKING = threading.Lock()  # so that no child inherits the pipe of another
_LEFT: Dict[int, int] = {}  # the pids of killed children that have not ended, and their accounts' user ids


class AccountProblem(Exception):
    """The work was not done; the words say why."""


class NoEnd(AccountProblem):
    """The work did not end in time."""


class Child:
    """A child process that does some work and writes its answer. account: the user id that it works as just now, or a
    lane below 0 (account_tasks.py).

    Raises AccountProblem where too many earlier children have not ended, or the host cannot start another process.
    """

    def __init__(self, account: int, work: Callable[[int], None]) -> None:
        """work: called in the child with the descriptor to write to; the child ends after it."""
        self.account = account
        reap()
        if account in _LEFT.values():
            raise AccountProblem(NOT_ENDED)
        if len(_LEFT) >= _MAX_LEFT_AT_ALL:
            raise AccountProblem(TOO_MUCH)
        with _FORKING:
            try:
                self.reading, writing = os.pipe()
            except OSError as problem:
                raise AccountProblem(f"nothing could be begun: {problem.strerror}") from None
            try:
                self._pid = os.fork()
            except OSError as problem:
                # An account may have used up all processes that the host allows.
                os.close(self.reading)
                os.close(writing)
                raise AccountProblem(f"no process could be begun: {problem.strerror}") from None
            if self._pid == 0:
                _work(work, writing)
            os.close(writing)

    def read(self, deadline: float, most: int = 1 << 16) -> Optional[bytes]:
        """What the child wrote, up to `most` bytes; empty at its end, None where nothing came before the deadline (by
        time.monotonic()).
        """
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            ready = select.poll()
            ready.register(self.reading, select.POLLIN)
            if ready.poll(min(left, 60.0) * 1000 + 1):
                return os.read(self.reading, most)

    def end(self) -> None:
        """Kill the child, and wait REAP_SECONDS for it at most."""
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
    """What `work` answers when it runs as `account`: at most 4 MiB, within `seconds`. Raises AccountProblem.

    Only root can work as another account.
    """
    if account.pw_uid != os.geteuid() and os.geteuid() != 0:
        raise AccountProblem(f"only root can do this as {account.pw_name}")
    # Before the fork: the child must not wait for a lock that another thread holds.
    groups = os.getgrouplist(account.pw_name, account.pw_gid)
    deadline = time.monotonic() + seconds
    child = Child(account.pw_uid, lambda writing: _as_account(account, groups, work, writing))
    try:
        answer = _read_all(child, deadline)
    finally:
        child.end()
    if answer is None:
        raise NoEnd(f"no end within {seconds:g} seconds")
    # A child that was killed writes no mark at the end.
    if answer.endswith(_DONE):
        return answer[:-1]
    raise AccountProblem(answer[:-1].decode("utf-8", "replace")[:300] or "it failed")


def reap() -> None:
    """Forget killed children that have ended since."""
    for pid in list(_LEFT):
        if _is_reaped(pid):
            _LEFT.pop(pid, None)


def words(error: OSError) -> str:
    """An error in words, with its file."""
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all bytes."""
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
    """The whole work of the child; it never returns."""
    global _FORKING
    try:
        _FORKING = threading.Lock()  # the parent's lock is held, and nobody would release it here
        _LEFT.clear()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        # A child that does not end must not keep the agent's lock files or connections open.
        _close_all_but(writing)
        work(writing)
    except BaseException:  # nothing of the parent's code may run here
        os._exit(1)
    # Not sys.exit: the parent's exit handlers must not run here.
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
    """In the child: give up root for good, do the work, and write its answer with a mark."""
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
    except BaseException as error:  # sent to the parent, which raises it
        answer = (words(error) if isinstance(error, OSError) else str(error)).encode("utf-8", "replace")
    write_all(writing, answer + mark)


def left() -> Tuple[int, ...]:
    """The accounts (user ids, or lanes below 0) whose killed children have not ended."""
    return tuple(_LEFT.values())
