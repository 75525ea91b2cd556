"""Ends live sessions: everything that runs in one login, and nothing else; which ones, others decide.

Killing a session's sshd alone leaves the user's command running. So all that belongs to the login is stopped
first (what is stopped starts nothing new), looked for again until nothing more is found, and only then killed.
What belongs to it: whatever descends from the connection's sshd; and what has left that line of parents (a
daemon, nohup, setsid) and still carries a mark of the login: the kernel's audit session, systemd's session scope,
or SSH_CONNECTION in the environment that it was started with.

What cannot be found: a process that left the line of parents on a host without audit sessions (pam_loginuid) and
without systemd-logind, and was started with an environment emptied on purpose; and what the user had something
else start: cron, at, a systemd unit.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import time
from typing import FrozenSet, Optional, Sequence, Set

from keyrack.agent import processes
from keyrack.agent.sessions import Session

_MOST_ROUNDS = 50
_GRACE_SECONDS = 0.5


def end(session: Session, listeners: FrozenSet[int], others: Sequence[Session]) -> int:
    """End a session; answers how many processes that took, 0 where it was over already.

    listeners: what sshd listens with, and others: the other live sessions, which all go on.
    """
    if not _is_there(session):
        return 0
    marks = _Marks(session, listeners)
    stopped: Set[int] = set()
    for _ in range(_MOST_ROUNDS):
        found = _belonging(session, marks, listeners, others)
        if found <= stopped:
            break
        for pid in found - stopped:
            _signal(pid, signal.SIGSTOP)
        stopped |= found
    for pid in stopped - {session.pid}:
        _signal(pid, signal.SIGKILL)
    # sshd itself may close what PAM and the login records hold open, if it is quick about it.
    _signal(session.pid, signal.SIGTERM)
    _signal(session.pid, signal.SIGCONT)
    deadline = time.monotonic() + _GRACE_SECONDS
    while _is_there(session):
        if time.monotonic() > deadline:
            _signal(session.pid, signal.SIGKILL)
            break
        time.sleep(0.01)
    return len(stopped)


class _Marks:
    """By what a process that left the line of parents is known to come from this login."""

    def __init__(self, session: Session, listeners: FrozenSet[int]) -> None:
        # Of no use are marks that sshd's listener has itself: somebody started it by hand, in a session.
        self._foreign = {""}
        for pid in (*listeners, os.getpid()):
            self._foreign |= {processes.audit_session(pid), processes.login_scope(pid)}
        self._account = _account(session.user)
        self._connection = f"SSH_CONNECTION={session.address} {session.port} "
        self._started = session.started
        self._audit: Set[str] = set()
        self._scopes: Set[str] = set()

    def learn(self, family: Set[int]) -> None:
        """Take the marks of processes that are known to belong to the login."""
        for pid in family:
            self._audit.add(processes.audit_session(pid))
            self._scopes.add(processes.login_scope(pid))
        self._audit -= self._foreign
        self._scopes -= self._foreign

    def on(self, process: processes.Process) -> bool:
        """Whether a process has one."""
        if process.started < self._started:
            return False
        if self._audit and processes.audit_session(process.pid) in self._audit:
            return True
        if self._scopes and processes.login_scope(process.pid) in self._scopes:
            return True
        # The account too, for anybody can put another's connection into an environment.
        owner = processes.user(process.pid)
        return owner == self._account and processes.environment_holds(process.pid, self._connection)


def _belonging(session: Session, marks: _Marks, listeners: FrozenSet[int], others: Sequence[Session]) -> Set[int]:
    everything = processes.everything()
    family = processes.below([session.pid], everything)
    marks.learn(family)
    marked = {process.pid for process in everything.values() if process.pid not in family and marks.on(process)}
    found = processes.below(family | marked, everything)
    # Somebody who starts the agent or sshd by hand in a session must not take everybody else down with it.
    spared = processes.above(os.getpid(), everything) | {1}
    for pid in listeners:
        spared |= processes.above(pid, everything)
    spared |= processes.below([other.pid for other in others], everything)
    return found - spared


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, number)


def _is_there(session: Session) -> bool:
    process = processes.read(session.pid)
    return process is not None and process.started == session.started


def _account(name: str) -> Optional[int]:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None
