"""Finds the processes of one login: those that run in it, and those that outlived its connection.

A process belongs to a login if it descends from the connection's sshd, or if it left that line of parents (a
daemon, nohup, setsid, a command whose client died) and still carries a mark of the login: the kernel's audit
session, systemd's session scope, or SSH_CONNECTION in the environment that it was started with. Only root can set
the first two. Anybody can put another login's connection into an environment, so the third counts only for
processes of the session's own account. This module signals nothing and judges no key.
"""

from __future__ import annotations

import os
import pwd
from typing import Dict, FrozenSet, Iterable, NamedTuple, Optional, Set, Tuple

from keyrack.agent.sshd import listening
from keyrack.agent.system import processes
from keyrack.agent.system.processes import Process


class Claim(NamedTuple):
    """What a further line of the log says of a session's connection: another account or key than the first line. In a
    log that every account can write to, it is not known which of them sshd wrote. kept: see LoginSession.
    """

    user: str
    fingerprint: str
    first: Tuple[str, ...] = ()
    kept: bool = False


class LoginSession(NamedTuple):
    """A login that has not ended. started: clock ticks since boot; kept: Keyrack's document once let this key in here,
    so the session ends when the document no longer does; audit, scope: its marks, empty where it has none; left: its
    connection is gone, but processes of it still run; until: ticks when a later login came from the same address and
    port, 0 for none; certified, first: see LoggedLogin; claims: of further lines.
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
    claims: Tuple[Claim, ...] = ()

    @property
    def id(self) -> str:
        """Its name in reports; no other session of this host has had it since the boot."""
        return f"{self.pid}-{self.started}"

    @property
    def keys(self) -> Tuple[str, ...]:
        """The fingerprints of all keys that signed."""
        return (self.fingerprint, *self.first)

    @property
    def readings(self) -> Tuple["LoginSession", ...]:
        """The session as each line of the log has it that may be sshd's: it ends as soon as one of them does.

        A claim of a key that was never let in here does not count: otherwise it would end the session of somebody else.
        """
        return (self, *(self.read_as(claim) for claim in self.claims if claim.kept))

    def read_as(self, claim: Claim) -> "LoginSession":
        """The session as a claim has it."""
        return self._replace(
            user=claim.user, fingerprint=claim.fingerprint, first=claim.first, certified=(), kept=claim.kept, claims=()
        )

    @property
    def is_connected(self) -> bool:
        """Whether the connection's own sshd process still runs."""
        process = processes.read(self.pid)
        return process is not None and process.started == self.started

    def same_connection(self, user: str, address: str, port: int) -> bool:
        """Whether it came from this address and port as this user, so that its SSH_CONNECTION is the same."""
        return (self.user, self.address, self.port) == (user, address, port)


class SessionMarks:
    """The marks by which a process that left the line of parents is known to belong to a login."""

    def __init__(self, session: LoginSession, listeners: FrozenSet[int]) -> None:
        # Marks that sshd's listener has itself are of no use: somebody started it by hand in a session.
        self._foreign = {""}
        for pid in (*listeners, os.getpid()):
            self._foreign |= {processes.audit_session(pid), processes.login_scope(pid)}
        self._session = session
        self._account = _account(session.user)
        self._connection = f"SSH_CONNECTION={session.address} {session.port} "
        self.audit = {session.audit} - self._foreign
        self.scopes = {session.scope} - self._foreign

    def learn(self, family: Iterable[int]) -> None:
        """Add the marks of these processes (pids), which are known to belong to the login."""
        for pid in family:
            self.audit.add(processes.audit_session(pid))
            self.scopes.add(processes.login_scope(pid))
        self.audit -= self._foreign
        self.scopes -= self._foreign

    def on(self, process: Process) -> bool:
        """Whether a process has one of the marks."""
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
    """The session with the marks that its process has now: PAM sets them after the key was accepted."""
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
    """The pids of a session's processes. others: the other connected sessions, whose processes are left out;
    everything: all processes by pid, where they were just read.
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
    """The pids that a session must not include: a session in which somebody started the agent or sshd by hand must not
    end them, nor the sessions of others.
    """
    spared = processes.above(os.getpid(), everything) | {1}
    heads = {os.getpid()} | {other.pid for other in others if _is_head(other, everything)}
    for pid in listeners:
        spared |= processes.above(pid, everything)
        # Connections that are not known yet, and no other children: a listener may be process 1, with orphans below it.
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
