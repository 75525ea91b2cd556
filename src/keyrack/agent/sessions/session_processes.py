"""Finds what belongs to one login: the processes that run in it, and those that outlived its connection.

What belongs to it: whatever descends from the connection's sshd; and what has left that line of parents (a
daemon, nohup, setsid, a command whose client died) and still carries a mark of the login: the kernel's audit
session, systemd's session scope, or SSH_CONNECTION in the environment that it was started with. The first two
nobody but root can set. Anybody can put another's connection into an environment, so the third counts for
processes of the session's own account alone. This module signals nothing and judges no key.
"""

from __future__ import annotations

import os
import pwd
from typing import Dict, FrozenSet, Iterable, NamedTuple, Optional, Set, Tuple

from keyrack.agent.sshd import listening
from keyrack.agent.system import processes
from keyrack.agent.system.processes import Process


class LoginSession(NamedTuple):
    """A login that is not over. started: clock ticks since boot; kept: Keyrack's document once let this key in here,
    so its end there ends the session too; audit and scope: its marks, empty where it has none; left: its connection
    is gone, and some of what it started is not; until: ticks when another login came by the same connection's
    address and port, 0 for none; certified, first: as a logged login has them.
    """

    pid: int
    started: int
    user: str
    address: str
    port: int
    fingerprint: str
    kept: bool = False
    audit: str = ""
    scope: str = ""
    left: bool = False
    until: int = 0
    certified: Tuple[str, ...] = ()
    first: Tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Its name towards the service; no other session of this host has had it since it booted."""
        return f"{self.pid}-{self.started}"

    @property
    def keys(self) -> Tuple[str, ...]:
        """The fingerprints of all keys that signed."""
        return (self.fingerprint, *self.first)

    @property
    def is_connected(self) -> bool:
        """Whether the connection's own sshd lives."""
        process = processes.read(self.pid)
        return process is not None and process.started == self.started

    def same_connection(self, user: str, address: str, port: int) -> bool:
        """Whether its environment names this connection."""
        return (self.user, self.address, self.port) == (user, address, port)


class SessionMarks:
    """By what a process that left the line of parents is known to come from a login."""

    def __init__(self, session: LoginSession, listeners: FrozenSet[int]) -> None:
        # Of no use are marks that sshd's listener has itself: somebody started it by hand, in a session.
        self._foreign = {""}
        for pid in (*listeners, os.getpid()):
            self._foreign |= {processes.audit_session(pid), processes.login_scope(pid)}
        self._session = session
        self._account = _account(session.user)
        self._connection = f"SSH_CONNECTION={session.address} {session.port} "
        self.audit = {session.audit} - self._foreign
        self.scopes = {session.scope} - self._foreign

    def learn(self, family: Iterable[int]) -> None:
        """Take the marks of processes that are known to belong to the login."""
        for pid in family:
            self.audit.add(processes.audit_session(pid))
            self.scopes.add(processes.login_scope(pid))
        self.audit -= self._foreign
        self.scopes -= self._foreign

    def on(self, process: Process) -> bool:
        """Whether a process has one."""
        if process.started < self._session.started:
            return False
        if self.audit and processes.audit_session(process.pid) in self.audit:
            return True
        if self.scopes and processes.login_scope(process.pid) in self.scopes:
            return True
        if self._session.until and process.started >= self._session.until:
            return False
        owner = processes.user(process.pid)
        return owner == self._account and processes.environment_holds(process.pid, self._connection)


def marked(session: LoginSession, listeners: FrozenSet[int]) -> LoginSession:
    """The session with the marks that its processes have by now: PAM sets them after the key was accepted."""
    marks = SessionMarks(session, listeners)
    marks.learn([session.pid])
    return session._replace(audit=next(iter(marks.audit), ""), scope=next(iter(marks.scopes), ""))


def processes_of(
    session: LoginSession,
    marks: SessionMarks,
    listeners: FrozenSet[int],
    others: Iterable[LoginSession],
    everything: Optional[Dict[int, Process]] = None,
) -> Set[int]:
    """The processes of a session. others: the other sessions with a connection, which are spared with all below them;
    everything: all processes, where they were just read.
    """
    everything = processes.everything() if everything is None else everything
    family: Set[int] = set()
    if _is_head(session, everything):
        family = processes.below([session.pid], everything)
        marks.learn(family)
    strays = {process.pid for process in everything.values() if process.pid not in family and marks.on(process)}
    members = processes.below(family | strays, everything)
    return members - _spared(family, listeners, others, everything)


def _spared(
    family: Set[int], listeners: FrozenSet[int], others: Iterable[LoginSession], everything: Dict[int, Process]
) -> Set[int]:
    """Somebody who starts the agent or sshd by hand in a session must not take everybody else down with it."""
    spared = processes.above(os.getpid(), everything) | {1}
    heads = {os.getpid()} | {other.pid for other in others if _is_head(other, everything)}
    for pid in listeners:
        spared |= processes.above(pid, everything)
        # Connections that are not known yet. A listener may be process 1, and has orphans of sessions below it then.
        owner = processes.user(pid)
        for child in everything.values():
            # sshd-session, sshd-auth: OpenSSH since 9.8
            is_sshd = child.parent == pid and (child.name.startswith("sshd-") or listening.is_sshd(child.pid))
            if is_sshd and processes.user(child.pid) == owner:
                heads.add(child.pid)
    return spared | (processes.below(heads - family, everything) - family)


def _is_head(session: LoginSession, everything: Dict[int, Process]) -> bool:
    process = everything.get(session.pid)
    return process is not None and process.started == session.started


def _account(name: str) -> Optional[int]:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None
