"""Knows who is logged in on this host, and with which key: sshd's live processes joined with what sshd logged.

A session is one connection. The process that sshd's listener started for it stands for all that runs in it: the
shells, the channels of a ControlMaster, `ssh -N`. It is the process that logged the accepted key; where the log
does not name the process, the TCP connection that both have joins them. A session lasts as long as any process that
was started in it (session_processes.py), also when its connection is gone. This module ends nothing.
"""

from __future__ import annotations

import contextlib
import ipaddress
import math
import os
import time
from typing import Any, Collection, Dict, FrozenSet, Iterable, List, Mapping, Optional, Sequence, Tuple

from keyrack.agent.sessions.login_log import LoggedLogin
from keyrack.agent.sessions.session_processes import Claim, LoginSession, SessionMarks, marked, processes_of
from keyrack.agent.sshd import listening
from keyrack.agent.system import processes
from keyrack.agent.system.processes import Process
from keyrack.protocol.host_document import HostDocument
from keyrack.ssh.public_key import fingerprint_of

_LOOK_FOR_SSHD_SECONDS = 5.0
_MATCH_SECONDS = 60.0  # so long a line of the log waits for its process
_MAX_WAITING = 10_000
_MAX_CLAIMS = 100  # of keys that were never let in here, of one session
_MARK_SECONDS = 60.0  # so long PAM may take to mark a login
_BRIEF_SECONDS = 1.0  # a login whose process has not been seen for so long has ended before it was seen
_BRIEF_TICKS = 2 * os.sysconf("SC_CLK_TCK")  # how late a line of the log may be read
_REST = 20  # times the duration of a scan of all processes, as a pause: it takes 5 % of a processor at most


class Rights:
    """What a document lets in and refuses, by fingerprint. A long document is read once, not for each session, and only
    for the accounts that have sessions.
    """

    def __init__(self, document: HostDocument) -> None:
        self.document = document
        self._revoked: Optional[FrozenSet[str]] = None
        self._ends: Dict[str, Dict[str, float]] = {}

    def end_of(self, session: LoginSession) -> float:
        """Until when the document lets a session's keys in, in seconds since 1970; infinity for keys without an end, 0
        for keys that it does not let in.
        """
        ends = self._ends.get(session.user)
        if ends is None:
            ends = self._ends[session.user] = {}
            document = self.document
            # A frozen key opens no new session, and ends none.
            for key in (*document.users.get(session.user, ()), *document.frozen.get(session.user, ())):
                fingerprint = fingerprint_of(key.public_key)
                end = math.inf if key.expires_at is None else key.expires_at.timestamp()
                ends[fingerprint] = max(end, ends.get(fingerprint, 0.0))
        return min(ends.get(fingerprint, 0.0) for fingerprint in session.keys)

    def is_revoked(self, session: LoginSession) -> bool:
        """Whether the document revokes one of the session's keys, or the key or authority of its certificate."""
        if self._revoked is None:
            self._revoked = frozenset(map(fingerprint_of, self.document.revoked))
        return not self._revoked.isdisjoint((*session.keys, *session.certified))


class Sessions:
    """The live sessions of one sshd. sshd_config: the settings file it was started with, None for the default one;
    known: sessions remembered from before a restart of the agent.
    """

    def __init__(self, sshd_config: Optional[str], known: Iterable[LoginSession] = ()) -> None:
        self._config = sshd_config
        self._known: Dict[int, LoginSession] = {}
        # Sessions whose connection is gone, by id: those not examined yet, and those with processes left (by pid, when
        # each was started).
        self._over: Dict[str, LoginSession] = {session.id: session for session in known}
        self._left: Dict[str, Tuple[LoginSession, Mapping[int, int]]] = {}
        self._brief: List[LoginSession] = []
        self._new: Dict[str, float] = {}
        self._listeners: Tuple[Process, ...] = ()
        self._looked_at = -math.inf
        self._over_at = -math.inf
        self._since = 0
        self._waiting: List[Tuple[float, int, LoggedLogin]] = []
        self._children: FrozenSet[int] = frozenset()
        self._alone: FrozenSet[int] = frozenset()
        self._alone_at = -math.inf
        self.unsaved = False
        self._is_claimed = False

    @property
    def live(self) -> Tuple[LoginSession, ...]:
        """All live sessions, as of the last update(), oldest first."""
        left = (session for session, _ in self._left.values())
        return tuple(sorted((*self._known.values(), *self._over.values(), *left), key=lambda one: one.started))

    @property
    def listeners(self) -> FrozenSet[int]:
        """The pids of sshd's listening processes."""
        return frozenset(process.pid for process in self._listeners)

    @property
    def strangers(self) -> FrozenSet[int]:
        """The pids of connections, as of the last update(), that no line of the log names, logged in or not yet."""
        return self._children - self._known.keys()

    def update(self, logins: Sequence[LoggedLogin]) -> bool:
        """Add the logins logged since the last update. Answers whether the live sessions have changed."""
        self._is_claimed = False
        now = time.monotonic()
        before = {session.id for session in self.live}
        self._waiting = [waiting for waiting in self._waiting if now - waiting[0] < _MATCH_SECONDS]
        self._waiting += [(now, self._since, login) for login in logins]
        del self._waiting[:-_MAX_WAITING]
        self._since = processes.ticks_now()
        self._find_listeners(now)
        children: FrozenSet[int] = frozenset().union(*(processes.children(process.pid) for process in self._listeners))
        known = {*self._alone, *(session.pid for session in self._over.values() if not session.left)}
        self._alone = frozenset(pid for pid in known - children if listening.is_lone_connection(pid))
        children |= self._alone
        self._come_back(children)
        if children != self._children or self._waiting or not self._known.keys() <= children:
            self._children = children
            self._part(children)
            if self._waiting:
                self._match(children)
                if self._waiting and now >= self._alone_at:
                    self._match(self._find_alone(now) - children)
                self._miss(now)
        self._mark(now)
        self._find_left(now)
        return self._is_claimed or {session.id for session in self.live} != before

    def _come_back(self, children: FrozenSet[int]) -> None:
        """Move remembered sessions whose connection is still there to the connected ones."""
        for session in [session for session in self._over.values() if session.pid in children and not session.left]:
            if session.is_connected:
                self._known[session.pid] = self._over.pop(session.id)
                self._new[session.id] = time.monotonic()

    def _part(self, children: FrozenSet[int]) -> None:
        """Move sessions whose connection is gone to those to be examined."""
        for session in list(self._known.values()):
            if session.pid not in children or not session.is_connected:
                del self._known[session.pid]
                self._new.pop(session.id, None)
                self._over[session.id] = session

    def _mark(self, now: float) -> None:
        """Note the marks of new sessions (see SessionMarks) while a process has them."""
        for session in [session for session in self._known.values() if session.id in self._new]:
            fresh = marked(session, self.listeners)
            if (fresh.audit, fresh.scope) != (session.audit, session.scope):
                self._known[session.pid] = fresh
                self.unsaved = True
            if now - self._new[session.id] > _MARK_SECONDS or (fresh.audit and fresh.scope):
                del self._new[session.id]

    def _find_left(self, now: float) -> None:
        """Find the processes that sessions left behind when their connection ended; forget sessions that left none."""
        for session, members in list(self._left.values()):
            if not any(_is_alive(pid, started) for pid, started in members.items()):
                del self._left[session.id]
                self._over[session.id] = session
        if not (self._over or self._brief) or now < self._over_at:
            return
        everything = processes.everything()
        over, self._over = list(self._over.values()), {}
        brief, self._brief = self._brief, []
        for session in over + brief:
            marks = SessionMarks(session, self.listeners)
            pids = processes_of(session, marks, self.listeners, self._known.values(), everything)
            if not pids:
                continue
            if not session.pid:
                # The session is named by its oldest process, as its connection was never seen.
                oldest = min((everything[pid] for pid in pids), key=lambda process: process.started)
                session = session._replace(pid=oldest.pid, started=oldest.started)
            self._left[session.id] = (session._replace(left=True), {pid: everything[pid].started for pid in pids})
        self._over_at = now + _REST * (time.monotonic() - now)

    def _miss(self, now: float) -> None:
        """Have logins examined that ended before their process was seen: they too may have left processes behind.

        Only logins that nobody but sshd can have logged, as no process proves the line.
        """
        waiting = []
        for at, since, login in self._waiting:
            over = now - at >= _BRIEF_SECONDS and not (login.pid and processes.read(login.pid))
            if not over:
                waiting.append((at, since, login))
                continue
            known = any(session.same_connection(login.user, login.address, login.port) for session in self.live)
            if login.sure and login.fingerprint and since and self._listeners and not known:
                started = max(0, since - _BRIEF_TICKS)
                brief = LoginSession(0, started, login.user, login.address, login.port, login.fingerprint)
                self._brief.append(brief._replace(first=login.first))
        self._waiting = waiting
        del self._brief[:-_MAX_WAITING]

    def mark_kept(self, rights: Rights, gone: Collection[Tuple[str, str]]) -> bool:
        """Mark the sessions whose keys a document lets in, or did until a moment ago (gone: pairs of an account and a
        fingerprint). Answers whether any was newly marked.
        """

        def was_let_in(session: LoginSession) -> bool:
            return any((session.user, key) in gone for key in session.keys) or rights.end_of(session) > 0

        changed = False
        for session in self.live:
            kept = session.kept or bool(session.fingerprint and was_let_in(session))
            claims = [
                one if one.kept else one._replace(kept=was_let_in(session.read_as(one))) for one in session.claims
            ]
            # Bounded only now: who writes very many lines must not push out the one that sshd wrote.
            now = session._replace(kept=kept, claims=_bounded(claims))
            if now != session:
                self._change(now)
                changed = True
        return changed

    def _change(self, session: LoginSession) -> None:
        if session.id in self._left:
            self._left[session.id] = (session, self._left[session.id][1])
        elif session.id in self._over:
            self._over[session.id] = session
        else:
            self._known[session.pid] = session

    def _find_alone(self, now: float) -> FrozenSet[int]:
        """The pids of connections that no listening sshd started: inetd and systemd's sockets start one for each."""
        alone = (pid for pid in processes.everything() if listening.is_lone_connection(pid))
        connected = frozenset(pid for pid in alone if processes.peers(pid))
        self._alone |= connected
        self._alone_at = now + max(_BRIEF_SECONDS / 2, _REST * (time.monotonic() - now))
        return connected

    def _find_listeners(self, now: float) -> None:
        alive = tuple(process for process in self._listeners if processes.read(process.pid) == process)
        if alive and now - self._looked_at < 12 * _LOOK_FOR_SSHD_SECONDS:
            self._listeners = alive
            return
        if now - self._looked_at >= _LOOK_FOR_SSHD_SECONDS or alive != self._listeners:
            self._looked_at = now
            self._listeners = tuple(self._search())

    def _search(self) -> Iterable[Process]:
        """sshd's listening processes that use our settings file: not those of a container, nor another private one."""
        everything = processes.everything()
        own = processes.namespace(os.getpid())
        for process in everything.values():
            if not listening.is_sshd(process.pid):
                continue
            parent = everything.get(process.parent)
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
        """Join logged logins with connection processes (pids) that belong to no session yet."""
        unknown = {}
        for pid in children:
            process = processes.read(pid) if pid not in self._known else None
            if process is not None:
                unknown[pid] = process
        ends: Dict[int, Any] = {}
        left = []
        for at, since, login in self._waiting:
            peer = (_plain(login.address), login.port)
            for process in [process for process in unknown.values() if login.pid in (0, process.pid)]:
                if process.pid not in ends:
                    ends[process.pid] = processes.peers(process.pid)
                # The first line wins: sshd writes it before the user can do anything on this host.
                if peer in ends[process.pid]:
                    del unknown[process.pid]
                    self._begin(process, login)
                    break
            else:
                left.append((at, since, login))
        self._waiting = self._claim(left)

    def _claim(self, waiting: Iterable[Tuple[float, int, LoggedLogin]]) -> List[Tuple[float, int, LoggedLogin]]:
        """Note on sessions what further lines of the log say of their connections. Answers the lines that say nothing
        new of any.
        """
        sessions = {(_plain(one.address), one.port): one for one in self.live}
        claims: Dict[Tuple[str, int], Dict[Claim, None]] = {}
        left = []
        for at, since, login in waiting:
            end = (_plain(login.address), login.port)
            session = sessions.get(end)
            if session is not None and self._says_more(session, login):
                claims.setdefault(end, {})[Claim(login.user, login.fingerprint, login.first)] = None
            else:
                left.append((at, since, login))
        for end, several in claims.items():
            session = sessions[end]
            known = {claim[:3] for claim in session.claims}
            fresh = [claim for claim in several if claim[:3] not in known]
            if fresh:
                self._change(session._replace(claims=(*session.claims, *fresh)))
                self._is_claimed = True
        return left

    def _says_more(self, session: LoginSession, login: LoggedLogin) -> bool:
        """Whether a line is about a session and names another key or account than the first line did."""
        # Where the connection is gone and the line has no pid, it may be of a later one from the same port.
        is_its = login.pid == session.pid or (login.pid == 0 and session.pid in self._known)
        said = (session.user, session.fingerprint, session.first)
        return is_its and login.fingerprint != "" and (login.user, login.fingerprint, login.first) != said

    def _begin(self, process: Process, login: LoggedLogin) -> None:
        for old in self.live:
            if not old.until and old.same_connection(login.user, login.address, login.port):
                self._change(old._replace(until=process.started))
        session = LoginSession(
            process.pid,
            process.started,
            login.user,
            login.address,
            login.port,
            login.fingerprint,
            certified=login.certified,
            first=login.first,
        )
        self._known[process.pid] = session
        self._new[session.id] = time.monotonic()


def as_reported(session: LoginSession, break_glass: Collection[Tuple[str, str]] = ()) -> Dict[str, Any]:
    """A session as a report has it. break_glass: pairs of an account and the fingerprint of a break-glass key."""
    return {
        "id": session.id,
        "user": session.user,
        "address": session.address,
        "fingerprint": session.fingerprint,
        "started_at": moment_text(processes.start_time(session.started)),
        **({"break_glass": True} if (session.user, session.fingerprint) in break_glass else {}),
    }


def save(sessions: Iterable[LoginSession]) -> List[Mapping[str, Any]]:
    """Sessions as JSON, to be remembered over a restart of the agent."""
    saved: List[Mapping[str, Any]] = []
    for session in sessions:
        fields = session._replace(claims=_bounded(session.claims))._asdict()
        if not session.claims:
            del fields["claims"]  # which an older agent does not know
        saved.append(fields)
    return saved


def load(value: object) -> List[LoginSession]:
    """The sessions that save() made JSON of; entries of another form are left out."""
    sessions = []
    for fields in value if isinstance(value, list) else ():
        with contextlib.suppress(TypeError, ValueError):
            session = LoginSession(**fields)
            claims = tuple(Claim(user, key, tuple(first), kept) for user, key, first, kept in session.claims)
            sessions.append(
                session._replace(certified=tuple(session.certified), first=tuple(session.first), claims=claims)
            )
    return sessions


def _bounded(claims: Sequence[Claim]) -> Tuple[Claim, ...]:
    """All claims of keys that were let in here, and the newest others."""
    return (*(one for one in claims if one.kept), *[one for one in claims if not one.kept][-_MAX_CLAIMS:])


def moment_text(seconds: float) -> str:
    """A time (seconds since 1970) as reports have it, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _is_alive(pid: int, started: int) -> bool:
    process = processes.read(pid)
    return process is not None and process.started == started


def _plain(address: str) -> str:
    """An address in its canonical form; other text as it is."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address
