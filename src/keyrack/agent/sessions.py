"""Knows who is in on this host, and with which key: sshd's live processes joined with what sshd logged.

A login is one connection. The process that sshd's listener started for it stands for all that runs in it: the
shells, the channels of a ControlMaster, `ssh -N`. It is the process that logged the accepted key; where the log
does not name the process, the TCP connection that both name joins them. This module ends nothing.
"""

from __future__ import annotations

import contextlib
import ipaddress
import math
import os
import time
from typing import Any, Collection, Dict, FrozenSet, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from keyrack.agent import listening, processes
from keyrack.agent.login_log import Login
from keyrack.agent.processes import Process
from keyrack.ssh.host_document import HostDocument
from keyrack.ssh.public_key import fingerprint_of

_LOOK_FOR_SSHD_SECONDS = 5.0
_MATCH_SECONDS = 60.0  # a line of the log waits so long for its process
_MOST_WAITING = 10_000


class Session(NamedTuple):
    """A live login. started: clock ticks since boot; kept: Keyrack's document once let this key in here, so its
    end there ends the session too.
    """

    pid: int
    started: int
    user: str
    address: str
    port: int
    fingerprint: str
    kept: bool = False

    @property
    def id(self) -> str:
        """Its name towards the service; no other session of this host has had it since it booted."""
        return f"{self.pid}-{self.started}"

    def told(self) -> Dict[str, str]:
        """As reports have it."""
        return {
            "id": self.id,
            "user": self.user,
            "address": self.address,
            "fingerprint": self.fingerprint,
            "started_at": moment_text(processes.start_time(self.started)),
        }


class Rights:
    """What a document lets in and refuses, found by fingerprint: however long it is, it is read once, not for each
    session. Only the accounts that are asked for are read.
    """

    def __init__(self, document: HostDocument) -> None:
        self.document = document
        self._revoked: Optional[FrozenSet[str]] = None
        self._ends: Dict[str, Dict[str, float]] = {}

    def end_of(self, session: Session) -> float:
        """Until when a session's key is let in: seconds since 1970, infinity, or 0 for not at all."""
        ends = self._ends.get(session.user)
        if ends is None:
            ends = self._ends[session.user] = {}
            for entry in self.document.users.get(session.user, ()):
                fingerprint = fingerprint_of(entry.key)
                end = math.inf if entry.expires_at is None else entry.expires_at.timestamp()
                ends[fingerprint] = max(end, ends.get(fingerprint, 0.0))
        return ends.get(session.fingerprint, 0.0)

    def is_revoked(self, session: Session) -> bool:
        """Whether this host refuses the session's key."""
        if self._revoked is None:
            self._revoked = frozenset(map(fingerprint_of, self.document.revoked))
        return session.fingerprint in self._revoked


class Sessions:
    """The live logins of one sshd. sshd_config: the settings it was started with, where not the usual ones."""

    def __init__(self, sshd_config: Optional[str], known: Iterable[Session] = ()) -> None:
        self._config = sshd_config
        self._known = {session.pid: session for session in known}
        self._listeners: Tuple[Process, ...] = ()
        self._looked_at = -math.inf
        self._waiting: List[Tuple[float, Login]] = []
        self._children: FrozenSet[int] = frozenset()

    @property
    def live(self) -> Tuple[Session, ...]:
        """All of them, as of the last look, oldest first."""
        return tuple(sorted(self._known.values(), key=lambda session: session.started))

    @property
    def listeners(self) -> FrozenSet[int]:
        """The numbers of the processes that sshd listens with."""
        return frozenset(process.pid for process in self._listeners)

    def look(self, logins: Sequence[Login]) -> bool:
        """Take in what was logged since the last look; True when who is in has changed."""
        now = time.monotonic()
        self._waiting = [(at, login) for at, login in self._waiting if now - at < _MATCH_SECONDS]
        self._waiting += [(now, login) for login in logins]
        del self._waiting[:-_MOST_WAITING]
        self._find_listeners(now)
        children: FrozenSet[int] = frozenset().union(*(processes.children(process.pid) for process in self._listeners))
        if children == self._children and not self._waiting and self._known.keys() <= children:
            return False
        self._children = children
        before = dict(self._known)
        self._known = {pid: session for pid, session in before.items() if pid in children and _is_alive(session)}
        if self._waiting:
            self._match(children)
        return self._known != before

    def mark_kept(self, rights: Rights, gone: Collection[Tuple[str, str]]) -> bool:
        """Note which sessions a document lets in, or did a moment ago; True when that is news.

        gone: accounts and fingerprints.
        """
        news = False
        for session in self.live:
            if session.kept or not session.fingerprint:
                continue
            if (session.user, session.fingerprint) in gone or rights.end_of(session) > 0:
                self._known[session.pid] = session._replace(kept=True)
                news = True
        return news

    def _find_listeners(self, now: float) -> None:
        alive = tuple(process for process in self._listeners if processes.read(process.pid) == process)
        if alive and now - self._looked_at < 12 * _LOOK_FOR_SSHD_SECONDS:
            self._listeners = alive
            return
        if now - self._looked_at >= _LOOK_FOR_SSHD_SECONDS or alive != self._listeners:
            self._looked_at = now
            self._listeners = tuple(self._search())

    def _search(self) -> Iterable[Process]:
        """sshd's listening processes with our settings: not those of a container, nor another private one."""
        found = processes.everything()
        own = processes.namespace(os.getpid())
        for process in found.values():
            if not listening.is_sshd(process.pid):
                continue
            parent = found.get(process.parent)
            if parent is not None and listening.is_sshd(parent.pid):
                continue
            words = processes.title(process.pid).split(" ")
            # A session's process is titled "sshd: user ..."; a listener's with the command that started it.
            if words[0].endswith(":") and not (len(words) > 1 and words[1].startswith("/")):
                continue
            if not listening.was_started_with(process.pid, self._config):
                continue
            if own and processes.namespace(process.pid) not in ("", own):
                continue
            yield process

    def _match(self, children: Iterable[int]) -> None:
        """Join what was logged with the processes that nobody is known for yet."""
        unknown = {}
        for pid in children:
            process = processes.read(pid) if pid not in self._known else None
            if process is not None:
                unknown[pid] = process
        ends: Dict[int, Any] = {}
        left = []
        for at, login in self._waiting:
            peer = (_plain(login.address), login.port)
            for process in [process for process in unknown.values() if login.pid in (0, process.pid)]:
                if process.pid not in ends:
                    ends[process.pid] = processes.peers(process.pid)
                # The first line counts: sshd writes it before the user can do anything on this host.
                if peer in ends[process.pid]:
                    del unknown[process.pid]
                    self._known[process.pid] = Session(
                        process.pid, process.started, login.user, login.address, login.port, login.fingerprint
                    )
                    break
            else:
                left.append((at, login))
        self._waiting = left


def save(sessions: Iterable[Session]) -> List[Mapping[str, Any]]:
    """As JSON, to be remembered over a restart of the agent."""
    return [session._asdict() for session in sessions]


def load(value: object) -> List[Session]:
    """What save() made; what is not of that form is left out."""
    found = []
    for fields in value if isinstance(value, list) else ():
        with contextlib.suppress(TypeError):
            found.append(Session(**fields))
    return found


def moment_text(seconds: float) -> str:
    """A time as JSON has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _is_alive(session: Session) -> bool:
    process = processes.read(session.pid)
    return process is not None and process.started == session.started


def _plain(address: str) -> str:
    """An address in its one form."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address
