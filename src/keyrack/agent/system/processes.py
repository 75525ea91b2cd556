"""Reads Linux's /proc: which processes there are, and what they belong to; it signals and judges nothing.

Processes may end at any moment: one that has ended meanwhile is left out. A process is identified by its pid together
with its start time, because pids are used again (proc(5)).
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from typing import Dict, FrozenSet, Iterable, List, NamedTuple, Optional, Set, Tuple

from keyrack.agent.system.sockets import far_ends

NO_AUDIT_SESSION = "4294967295"  # the kernel's value for a process that belongs to no login

_LOGIN_SCOPE = re.compile(r"/session-[^/]+\.scope(?:/|$)")
_TICKS = os.sysconf("SC_CLK_TCK")


class Process(NamedTuple):
    """One process; started: clock ticks since boot."""

    pid: int
    parent: int
    started: int
    name: str


def read(pid: int) -> Optional[Process]:
    """A process; None where it has ended or is a zombie."""
    try:
        text = _text(pid, "stat")
        # The name stands in brackets and may hold anything, brackets too.
        name, _, rest = text[text.index("(") + 1 :].rpartition(") ")
        fields = rest.split(" ")
        if fields[0] in "ZX":
            return None
        return Process(pid, int(fields[1]), int(fields[19]), name)
    except (OSError, ValueError, IndexError):
        return None


def everything() -> Dict[int, Process]:
    """All processes that can be seen, by pid."""
    readable = (read(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {process.pid: process for process in readable if process is not None}


def children(pid: int) -> FrozenSet[int]:
    """The pids of a process's children: one small read where the kernel lists them."""
    try:
        pids: Set[int] = set()
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                pids.update(map(int, file.read().split()))
        return frozenset(pids)
    except FileNotFoundError:
        if not os.path.exists(f"/proc/{pid}"):
            return frozenset()
        return frozenset(process.pid for process in everything().values() if process.parent == pid)
    except (OSError, ValueError):
        return frozenset()


def below(roots: Iterable[int], processes: Dict[int, Process]) -> Set[int]:
    """The pids of these processes and all their descendants, as far as the line of parents is unbroken."""
    by_parent: Dict[int, List[int]] = {}
    for process in processes.values():
        by_parent.setdefault(process.parent, []).append(process.pid)
    pids: Set[int] = set()
    waiting = [pid for pid in roots if pid in processes]
    while waiting:
        pid = waiting.pop()
        if pid not in pids:
            pids.add(pid)
            waiting.extend(by_parent.get(pid, ()))
    return pids


def above(pid: int, processes: Dict[int, Process]) -> Set[int]:
    """The pids of a process and its ancestors."""
    pids: Set[int] = set()
    while pid in processes and pid not in pids:
        pids.add(pid)
        pid = processes[pid].parent
    return pids


def title(pid: int) -> str:
    """The command line, which sshd rewrites to say what it does; empty when it cannot be read."""
    try:
        return _text(pid, "cmdline").replace("\0", " ").strip()
    except OSError:
        return ""


def user(pid: int) -> Optional[int]:
    """The user id of the account that started a process; None where it is gone. Not the owner of its files in /proc:
    these belong to root where a process asks for that (prctl(2), PR_SET_DUMPABLE).
    """
    numbers = _users(pid)
    return numbers[0] if numbers else None


def is_ours(pid: int) -> bool:
    """Whether all user ids of a process are root's or the agent's, and its program is not setuid. Only then are its
    name, arguments and open files not chosen by another account.
    """
    numbers = _users(pid)
    if not numbers or not set(numbers) <= {0, os.geteuid()}:
        return False
    try:
        return not os.stat(f"/proc/{pid}/exe").st_mode & (stat.S_ISUID | stat.S_ISGID)
    except PermissionError:
        return True
    except OSError:
        return False


def _users(pid: int) -> List[int]:
    """A process's user ids: real, effective, saved, file system (proc(5), status). Empty where it is gone."""
    try:
        line = next(line for line in _text(pid, "status").split("\n") if line.startswith("Uid:"))
        return [int(number) for number in line.split()[1:]]
    except (OSError, ValueError, StopIteration):
        return []


def audit_session(pid: int) -> str:
    """The kernel's audit session of the login that a process belongs to; empty where there is none."""
    try:
        number = _text(pid, "sessionid").strip()
    except OSError:
        return ""
    return "" if number == NO_AUDIT_SESSION else number


def login_scope(pid: int) -> str:
    """systemd's session scope of the login that a process belongs to; empty where there is none."""
    with contextlib.suppress(OSError):
        for line in _text(pid, "cgroup").split("\n"):
            match = _LOGIN_SCOPE.search(line)
            if match:
                return line[: match.end()].split(":", 2)[-1].rstrip("/")
    return ""


def environment_holds(pid: int, entry: str) -> bool:
    """Whether the environment that a process was started with has an entry that begins like this."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return b"\0" + entry.encode() in b"\0" + file.read(1 << 20)
    except OSError:
        return False


def namespace(pid: int) -> str:
    """The PID namespace of a process; empty where it cannot be read."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


def sockets(pid: int) -> Set[str]:
    """The inodes of the sockets that a process has open; empty where they cannot be read."""
    inodes: Set[str] = set()
    with contextlib.suppress(OSError):
        for number in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                file = os.readlink(f"/proc/{pid}/fd/{number}")
                if file.startswith("socket:["):
                    inodes.add(file[len("socket:[") : -1])
    return inodes


def own_and_other_pids() -> Tuple[List[int], List[int]]:
    """The pids of all processes that can be seen: those that may be root's or the agent's account's, and the others.

    By the owner of their folders in /proc (proc(5)); is_ours() is False for all the others.
    """
    near: List[int] = []
    far: List[int] = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                (near if os.stat(f"/proc/{name}").st_uid in (0, os.geteuid()) else far).append(int(name))
    return near, far


def peers(pid: int) -> Set[Tuple[str, int]]:
    """The addresses and ports at the other ends of a process's TCP connections."""
    open_ones = sockets(pid)
    if not open_ones:
        return set()
    ends = far_ends(pid)
    return {ends[inode] for inode in open_ones if inode in ends}


def start_time(started: int) -> float:
    """A start time in ticks since boot as seconds since 1970, by the clock as it is now."""
    return time.time() - since_boot() + started / _TICKS


def ticks_now() -> int:
    """Now, in clock ticks since boot, as Process.started."""
    return int(since_boot() * _TICKS)


def since_boot() -> float:
    """Seconds since the host booted, including sleep, which time.monotonic() leaves out. Nobody can set this clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """The kernel's id of this boot, within which pids and login numbers are valid; empty where it cannot be read."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _text(pid: int, name: str) -> str:
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read().decode("utf-8", "replace")
