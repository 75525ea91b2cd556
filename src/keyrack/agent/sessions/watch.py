"""Watches the live sessions: ends those whose key has ended, and reports who is logged in; must never change who may
log in.

It has its own thread and its own connection, because the main one waits for documents most of the time.

A session is ended when:
(1) its key is among the document's revoked ones;
(2) the document let its key in as this account before, and no longer does, or the key's end there has passed: also
    when the service is dead, and after a restart of the agent;
(3) the host dropped its key, because the service was silent for longer than the document allows;
(4) the document names the session itself; in observe mode only this counts.
A session of a key that Keyrack never let in here (another file does) is not ended until the key is revoked.
"""

from __future__ import annotations

import json
import math
import threading
import time
from datetime import datetime, timezone
from typing import Any, Callable, Dict, Iterable, List, Optional, Set, Tuple

from keyrack import __version__
from keyrack.agent.reconcile import InForce
from keyrack.agent.service.client import NoAnswer, ServiceClient
from keyrack.agent.sessions import last_uses, login_log, recent_logins, sessions, termination
from keyrack.agent.sessions.last_uses import Uses
from keyrack.agent.sessions.login_log import LoggedLogin
from keyrack.agent.sessions.recent_logins import LoginMemory
from keyrack.agent.sessions.session_processes import LoginSession
from keyrack.agent.sessions.sessions import Rights, Sessions
from keyrack.agent.sessions.unknown import UnknownSessions
from keyrack.agent.sessions.unreported_logins import UnreportedLogins
from keyrack.agent.sshd.settings import Sshd
from keyrack.agent.state import Enrolment, StateFolder
from keyrack.agent.system import machine, processes, threads
from keyrack.agent.system.folder import PRIVATE_FILE
from keyrack.protocol.document_words import ENFORCE, OBSERVE
from keyrack.protocol.host_document import HostDocument
from keyrack.protocol.report import Report
from keyrack.protocol.words import count
from keyrack.ssh.names import account_problem
from keyrack.ssh.public_key import fingerprint_of

POLL_SECONDS = 1.0  # how late the end of a key may end its sessions
MACHINE_SECONDS = 600.0  # between two reports of the machine's facts, where nothing else is reported
REPORT_SECONDS = 5.0  # between two reports; the first after a quiet time is sent at once
NO_ANSWER_SECONDS = 15.0
MAX_GONE_KEYS = 1000  # removed break-glass keys that are remembered, as a login with one may still be reported
NOT_AS_IT_IS = (400, 413, 422)  # statuses that refuse this very report, as too long or not understood
LATE_LOGIN_SECONDS = 180.0  # a login may take two minutes (LoginGraceTime), so its session may appear so late

_MAX_NAMES = 1000


NOTHING = HostDocument("", 0, datetime.fromtimestamp(0, timezone.utc), {}, mode=OBSERVE)


class SessionWatch:
    """The live sessions of one enrolled host. obey() may be called from another thread than step()."""

    def __init__(
        self,
        state: StateFolder,
        enrolment: Enrolment,
        client: ServiceClient,
        say: Callable[[str], None],
        log_path: Optional[str] = None,
    ) -> None:
        self._state_folder = state
        self._client = client
        self._say = say
        remembered = self._remembered()
        self._sessions = Sessions(enrolment.sshd_config, sessions.load(remembered.get("sessions")))
        self._log = login_log.find(log_path, _place(remembered.get("place")))
        self._unknown = UnknownSessions(Sshd(enrolment.sshd_config), self._log)
        self._not_known = ""
        self._uses = Uses()
        self._unreported = UnreportedLogins(remembered.get("untold"))
        self._names: Set[str] = {str(name) for name in _list(remembered.get("names")) if account_problem(name) is None}
        self._login_memory = LoginMemory(remembered.get(recent_logins.FIELD))
        self._is_known = "place" in remembered
        self._obeyed: Optional[InForce] = None
        self._judged: Optional[InForce] = None
        self._rights = self._counted = Rights(NOTHING)
        self._ends: Dict[str, float] = {}
        self._said: Set[str] = set()
        self._gone: Dict[Tuple[str, str], float] = {}
        self._break_glass: Set[Tuple[str, str]] = set()
        self._lock = threading.Lock()  # around _gone
        self._sessions_changed = True  # after a start the sessions are reported: the service may have others
        self._report_at = self._machine_at = 0.0
        self._most, self._apart = (
            last_uses.MAX,
            False,
        )  # most entries in one report; apart: report logins, uses and sessions separately
        self._awake = threading.Event()

    def start(self) -> None:
        """Watch on a thread of its own until the process ends. Raises OSError where none can be started."""
        threads.begin(threading.Thread(target=self._run, name="sessions", daemon=True))

    def obey(self, obeyed: InForce) -> None:
        """Take what is in force now, with its files in place. Sessions that it ends are ended at once."""
        before = self._obeyed
        if before is not None and before is not obeyed and before.document.mode == ENFORCE:
            # A login that began with a removed key may only be seen after the key was removed.
            forget_at = time.monotonic() + LATE_LOGIN_SECONDS
            gone = dict.fromkeys(_opened(before.document) - _opened(obeyed.document), forget_at)
            with self._lock:
                self._gone.update(gone)
        self._break_glass = break_glass_keys(obeyed.document, self._break_glass)
        self._obeyed = obeyed
        self._awake.set()

    def step(self) -> None:
        """Read the log and the processes once, end the sessions that are due, and report what has changed."""
        logins = self._log.read() if self._log else []
        self._uses.add(logins)
        self._login_memory.add(logins)
        # At the very first step, the log's logins are from before this host was watched: they are not reported.
        self._unreported.add(logins if self._is_known else ())
        self._is_known = True
        changed = self._sessions.update(logins)
        self._note_names(logins)
        obeyed = self._obeyed
        if obeyed is not None and (changed or obeyed is not self._judged):
            changed = self._judge(obeyed) or changed
        if obeyed is not None and self._end_due():
            changed = self._sessions.update(()) or changed
        if changed or logins or self._sessions.unsaved:
            self._sessions.unsaved = False
            self._remember()
        keyless = sum(not (one.fingerprint or one.certified) for one in self._sessions.live)
        not_known = self._unknown.why(self._sessions.strangers, keyless)
        self._sessions_changed = self._sessions_changed or changed or not_known != self._not_known
        self._not_known = not_known
        if obeyed is None or obeyed.document.deleted:
            return
        due = self._sessions_changed or self._uses or self._unreported or time.monotonic() >= self._machine_at
        if due and time.monotonic() >= self._report_at:
            self._report()

    @property
    def names(self) -> Set[str]:
        """Accounts that somebody logged in as, by the log: they exist, though the system may not list them."""
        return set(self._names)

    def _note_names(self, logins: Iterable[LoggedLogin]) -> None:
        # Every account can write to syslog: there a name counts only with a live session.
        seen = self._sessions.live if login_log.is_anybodys(self._log) else logins
        new = {one.user for one in seen if account_problem(one.user) is None} - self._names
        if new:
            # A new set, as another thread may read the old one. New names never displace older ones.
            self._names = {*self._names, *sorted(new)[: _MAX_NAMES - len(self._names)]}

    def _run(self) -> None:
        while True:
            self._awake.wait(POLL_SECONDS)
            self._awake.clear()
            try:
                self.step()
            except Exception as error:  # the watch must go on: the next step may succeed, and no login depends on it
                self._say(f"sessions cannot be watched: {type(error).__name__}: {error}")
                self._awake.wait(NO_ANSWER_SECONDS)

    def _judge(self, obeyed: InForce) -> bool:
        """Note for each live session when it ends by what is in force. Answers whether there is something to save."""
        now = time.monotonic()
        with self._lock:
            self._gone = {place: forget_at for place, forget_at in self._gone.items() if forget_at > now}
            gone = {(user, fingerprint_of(key)) for user, key in self._gone}
        # By the whole document: a key that was dropped while the service was silent still belongs to it, also after a
        # restart.
        if self._judged is not obeyed:
            self._rights, self._counted = Rights(obeyed.document), Rights(obeyed.counted)
        newly_kept = obeyed.document.mode == ENFORCE and self._sessions.mark_kept(self._rights, gone)
        self._ends = {session.id: _end_of(self._counted, session) for session in self._sessions.live}
        self._judged = obeyed
        return newly_kept

    def _end_due(self) -> int:
        """End the sessions that are due; answers how many."""
        now = time.time()
        due = [session for session in self._sessions.live if self._ends.get(session.id, now) < now]
        for session in due:
            others = [other for other in self._sessions.live if other not in due]
            ended = termination.end(session, self._sessions.listeners, others)
            if session.id not in self._said:  # one that does not end is tried again at each step, and logged once
                self._said.add(session.id)
                over = min(session.readings, key=lambda one: _end_of_reading(self._counted, one))
                self._say(
                    f"ended the session of {over.user} from {over.address}, key {over.fingerprint or 'none'} "
                    f"({count(ended, 'process', 'processes')}): {_why(self._rights, self._counted, over)}"
                )
        return len(due)

    def _report(self) -> None:
        """Report sessions, logins and uses of keys; what is not received is reported again later."""
        taken = self._uses.take(self._most)
        batch = None
        if not (self._apart and taken):
            batch = self._unreported.batch(anybodys=login_log.is_anybodys(self._log), most=self._most)
        tells_sessions = self._sessions_changed and not (self._apart and (taken or batch))
        report = Report(
            agent_version=__version__,
            machine=machine.facts(),
            last_used=last_uses.as_reported(taken, self._break_glass) if taken else None,
            logins=batch,
            sessions=[sessions.as_reported(one, self._break_glass) for one in self._sessions.live]
            if tells_sessions
            else None,
            sessions_unknown=self._not_known if tells_sessions else None,
        )
        self._report_at = time.monotonic() + REPORT_SECONDS
        try:
            answer = self._client.post("/agent/v1/report", report.to_json())
        except NoAnswer:
            self._client.close()
            self._uses.put_back(taken)
            self._report_at += NO_ANSWER_SECONDS
            return
        if answer.status >= 300 and answer.status not in NOT_AS_IT_IS:
            self._uses.put_back(taken)
            self._report_at += answer.retry_after or NO_ANSWER_SECONDS
            return
        if answer.status in NOT_AS_IT_IS:
            if self._split_report(report, taken):
                return
            # An older service does not know such a report, and would refuse it again.
            if batch is not None:
                self._unreported.leave_out()
                self._report_at = 0.0  # the logins behind it are reported soon
        else:
            if batch is not None:
                self._unreported.answered()
            self._most = min(2 * self._most, last_uses.MAX)
            self._apart = False
        self._machine_at = time.monotonic() + MACHINE_SECONDS
        self._sessions_changed = self._sessions_changed and not tells_sessions
        if batch is not None:
            self._remember()

    def _split_report(self, report: Report, taken: List[LoggedLogin]) -> bool:
        """Whether a refused report can be split into smaller ones; then the next one is smaller, and is sent soon.

        A proxy may limit bodies to less than a busy host reports, and one refused part must not take others with it.
        """
        parts = [part for part in (report.last_used, report.logins, report.sessions) if part is not None]
        number = max(len(taken), len(report.logins["entries"]) if report.logins is not None else 0)
        if len(parts) < 2 and number < 2:
            return False
        if len(parts) > 1:
            self._apart = True
        else:
            self._most = number // 2
        self._uses.put_back(taken)
        if report.logins is not None:
            self._unreported.refused()
        self._report_at = 0.0
        return True

    def _remembered(self) -> Dict[str, Any]:
        try:
            fields = json.loads(self._state_folder.folder.read(recent_logins.FILE, recent_logins.LARGEST_FILE))
        except (OSError, ValueError):
            return {}
        if not isinstance(fields, dict):
            return {}
        # Pids and start times begin anew with each boot. Files of older agents do not name the boot.
        if fields.get("boot", processes.boot_id()) != processes.boot_id():
            fields.pop("sessions", None)
        return fields

    def _remember(self) -> None:
        place = list(self._log.mark()) if self._log else None
        fields = {
            "sessions": sessions.save(self._sessions.live),
            "place": place,
            "boot": processes.boot_id(),
            "untold": self._unreported.save(),
            "names": sorted(self._names),
            recent_logins.FIELD: self._login_memory.save(),
        }
        try:
            self._state_folder.folder.write(
                recent_logins.FILE, json.dumps(fields).encode("ascii"), PRIVATE_FILE, durable=False
            )
        except OSError as error:
            self._say(f"{self._state_folder.folder.path} cannot be written: {error.strerror}")


def _list(value: object) -> List[object]:
    return value if isinstance(value, list) else []


def _opened(document: HostDocument) -> Set[Tuple[str, str]]:
    """What a document lets in: pairs of an account and a key, frozen keys among them."""
    let_in = (*document.users.items(), *document.frozen.items())
    return {(user, key.public_key) for user, keys in let_in for key in keys}


def break_glass_keys(document: HostDocument, before: Set[Tuple[str, str]]) -> Set[Tuple[str, str]]:
    """Pairs of an account and the fingerprint of a break-glass key, by this document or one before it: a login with
    such a key is reported as break-glass, also where the service removed the key before it received the login.
    """
    now = {(user, fingerprint_of(key)) for user, some in document.break_glass.items() for key in some}
    others = {(user, fingerprint_of(key)) for user, key in _opened(document)} if before - now else set()
    kept = sorted(before - now - others)[:MAX_GONE_KEYS]
    return now.union(kept)


def _end_of(rights: Rights, session: LoginSession) -> float:
    """Until when a session may last, in seconds since 1970: 0 for no longer, infinity for no end."""
    return min(_end_of_reading(rights, one) for one in session.readings)


def _end_of_reading(rights: Rights, session: LoginSession) -> float:
    document = rights.document
    if session.id in document.end_sessions:
        return 0.0
    if document.deleted:
        return 0.0 if session.kept else math.inf
    if document.mode != ENFORCE or not (session.fingerprint or session.certified):
        return math.inf
    if rights.is_revoked(session):
        return 0.0
    return rights.end_of(session) if session.kept else math.inf


def _why(rights: Rights, counted: Rights, session: LoginSession) -> str:
    if session.id in rights.document.end_sessions:
        return "somebody asked for it"
    if rights.document.deleted:
        return "this server was deleted"
    if rights.is_revoked(session):
        return "the key was taken away"
    if counted.end_of(session):
        return "the key has reached its end"
    if rights.end_of(session) > time.time():
        return "the key was dropped, because the service was silent for too long"
    return "the key was taken away"


def _place(value: object) -> login_log.LogPosition:
    if isinstance(value, list) and len(value) == 2 and all(isinstance(number, int) for number in value):
        return login_log.LogPosition(*value)
    return login_log.LogPosition()
