"""Makes the rest of a host what a document says, beside its key files: sshd's settings, accounts and unmanaged keys,
and reports on them; a failure here must not hold back a key file.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Tuple

from keyrack.agent.keys import other_sources, unmanaged_keys
from keyrack.agent.keys.background_scan import BackgroundScan, ScanResult
from keyrack.agent.keys.seen_files import SeenFiles
from keyrack.agent.keys.unmanaged_keys import Scanner
from keyrack.agent.sshd import refused_logins
from keyrack.agent.sshd.drop_in import SETTINGS
from keyrack.agent.sshd.enforcement import Enforcement
from keyrack.agent.sshd.enforcement_record import OFF, ON, TRYING, UNDONE
from keyrack.agent.sshd.host_keys import HostKeyScan, SshdHostKeys
from keyrack.agent.sshd.login_check import LoginCheck
from keyrack.agent.sshd.settings import Sshd, SshdProblem
from keyrack.agent.state import Enrolment, StateFolder, StateProblem, Status
from keyrack.agent.system import local as decisions
from keyrack.agent.system.account_numbers import AccountNumbers
from keyrack.agent.system.accounts import Accounts
from keyrack.agent.system.processes import boot_id, since_boot
from keyrack.protocol.document_words import DROP_ALL, DROP_TEMPORARY, KEEP_ALL, OBSERVE
from keyrack.protocol.host_document import AuthorizedKey, HostDocument
from keyrack.protocol.report import Report, ReportedKey, wire_word
from keyrack.protocol.words import count

REPORTED_SSHD_SETTINGS = (*SETTINGS, "KbdInteractiveAuthentication", "PubkeyAuthentication", "AuthorizedKeysFile")
_MAX_FOREIGN = 200
_BEGINNING = datetime(1970, 1, 2, tzinfo=timezone.utc)  # before any end; sshd reads none before 1970
UNPROVEN = "unproven"  # the settings are in place, but the running sshd does not show that it obeys them
_ENFORCEMENT_WORDS = {OFF: wire_word(OBSERVE), TRYING: "trying", ON: "enforce", UNDONE: "undone"}


class Met(NamedTuple):
    """The outcome of put(). unmet: sentences about what was not done; put_back: sentences about what somebody had
    changed on this host, answered until they are delivered.
    """

    unmet: Tuple[str, ...]
    put_back: Tuple[str, ...]


class DesiredState:
    """The desired state of one enrolled host. Raises StateProblem where its own decisions cannot be read."""

    def __init__(self, state: StateFolder, enrolment: Enrolment, say: Callable[[str], None]) -> None:
        self._state_folder = state
        self.local, self._undecided = decisions.read_with_problem(state)
        self._accounts = Accounts(state, self.local)
        self._numbers = AccountNumbers(state)
        self._sshd = Sshd(enrolment.sshd_config)
        self._scan = BackgroundScan(Scanner(self._sshd, enrolment.keys_folder, SeenFiles(state)))
        self._enforcement: Optional[Enforcement] = None
        self._damage = ""
        if self.local.drop_in is not None:
            try:
                self._enforcement = Enforcement(state, enrolment, self.local.drop_in, say, self.local.trial_seconds)
            except StateProblem as problem:
                # Keys and revocations of the document still come into force.
                self._damage = f"sshd's settings are left alone: {problem}"
        own_check = LoginCheck(self._sshd, enrolment.keys_folder)
        self._login_check = own_check if self._enforcement is None else self._enforcement.login_check
        self._logins: Dict[str, Dict[str, Any]] = {}
        self._keys_folder = enrolment.keys_folder
        self._facts: Dict[str, Any] = {}
        self._scanned: Optional[ScanResult] = None
        self._shut_out = ""
        self._plan: Dict[str, Any] = {}
        self._planned: Tuple[object, ...] = ()
        self._foreign: List[ReportedKey] = []
        self._reported: Tuple[object, ...] = ()
        self._reporting: Tuple[object, ...] = ()
        self._reported_digest = ""
        self._reporting_digest = ""
        self._sshd_state: Tuple[object, ...] = ()
        self._logged_in: Callable[[], Iterable[str]] = tuple
        self._host_key_scan = HostKeyScan(self._sshd)
        self._host_keys: Optional[SshdHostKeys] = None
        self._reported_host_keys: Optional[SshdHostKeys] = None
        self._reporting_host_keys: Optional[SshdHostKeys] = None

    @property
    def on_trial(self) -> bool:
        """Whether enforcing is on trial, so that sshd and the service must be checked every few seconds."""
        return self._enforcement is not None and self._enforcement.state == TRYING

    @property
    def scanning(self) -> bool:
        """Whether a scan for keys runs, or a key pair is being made, whose result must be asked for soon."""
        return self._scan.is_running or self._accounts.waiting

    @property
    def has_unreported(self) -> bool:
        """Whether something of to_report() has not been delivered yet."""
        return self._state() != self._reported

    def scan_in_background(self) -> None:
        """From now on put() does not wait for a long scan for keys. For an agent that keeps running."""
        self._scan.limit_wait()

    def also_scan_for(self, names: Callable[[], Iterable[str]]) -> None:
        """Scan the keys of these accounts too, which sshd's log named."""
        self._logged_in = names

    def begin(self) -> None:
        """Called after a start, before anything else."""
        if self._enforcement is not None:
            self._enforcement.begin()

    def note_contact(self, answered: bool) -> None:
        """Note whether the service answered just now."""
        if self._enforcement is not None:
            self._enforcement.note_contact(answered)

    def note_foreign(self, foreign: List[ReportedKey]) -> None:
        """Remember foreign keys that were in Keyrack's files, for reports."""
        known = {(one.path, one.fingerprint) for one in foreign}
        kept = [one for one in self._foreign if (one.path, one.fingerprint) not in known]
        self._foreign = (kept + foreign)[-_MAX_FOREIGN:]

    def allowed(self, document: HostDocument) -> HostDocument:
        """The document without the accounts that the service may not speak for here."""
        return self.local.allowed(document)

    def put(self, document: HostDocument, *, scan: bool = True) -> Met:
        """Do what the document asks. What cannot be done is answered, and does not prevent the rest.

        scan: also scan all key files that sshd reads, which takes longer. The result of a long scan is taken by a later
        put().
        """
        unmet: List[str] = [self._undecided] if self._undecided else []
        put_back: List[str] = []
        kept_out = [name for name in document.users if not self.local.speaks_for(name)]
        if kept_out:
            unmet.append(f"this host does not let the service speak for: {', '.join(sorted(kept_out))}")
        try:
            unmet += self._accounts.put(document.accounts)
        except OSError as error:
            unmet.append(f"accounts were left alone: {error.strerror}")
        put_back += self._numbers.renumbered(name for name, keys in self.allowed(document).users.items() if keys)
        if self._enforcement is not None:
            unmet += self._enforcement.put(self.allowed(document), full=scan)
            put_back += self._enforcement.put_back
        elif self._damage:
            unmet.append(self._damage)
        elif document.sshd or document.mode != "enforce":
            unmet += self._unmanaged(document)
        try:
            # Before the first report: otherwise people would be shown an ssh command without the port.
            self._host_key_scan.ensure_port()
            self._scan_for_keys(document, scan=scan)
            if document.remove_keys and self._scanned is not None:
                unmet += self._scanned.problems
            self._note_settings()
            if scan:
                self._host_keys = self._host_key_scan.keys()
                self._logins = self._refused_logins(document)
                self._shut_out = self._whom_enforcing_shuts_out(document)
                self._plan = self._what_enforcing_changes(document)
            unseen = "" if self._scanned is None else _scan_words(self._scanned)
        except (SshdProblem, OSError) as problem:
            unseen = f"sshd does not say what it reads: {problem}"
        self._facts = {
            "sshd": self._facts.get("sshd", {}),
            **self._state_facts(document),
            "scan": unseen,
            "writers": other_sources.writers(),
        }
        return Met(tuple(unmet), tuple(put_back))

    def to_report(self) -> Report:
        """This part of a report; with keys_found and host_keys only if they changed since the last delivered report."""
        self._reporting = self._state()
        report = Report(facts=self._facts)
        self._reporting_host_keys = self._host_keys
        if self._host_keys is not None and self._host_keys != self._reported_host_keys:
            report = report._replace(host_keys={"port": self._host_keys.port, "keys": list(self._host_keys.keys)})
        if self._scanned is None:
            return report  # without keys_found: an empty list would mean that a scan found none
        self._reporting_digest = self._digest()
        if self._reporting_digest != self._reported_digest:
            return report._replace(keys_found=self._scanned.keys + self._foreign, keys_cut=self._scanned.cut)
        return report

    def delivered(self) -> None:
        """Note that the service has received what to_report() answered last."""
        self._reported, self._reported_digest = self._reporting, self._reporting_digest
        self._reported_host_keys = self._reporting_host_keys
        self._numbers.delivered()

    def _scan_for_keys(self, document: HostDocument, *, scan: bool) -> None:
        before = self._enforcement.before if self._enforcement is not None else ()
        if scan or document.remove_keys:
            names = {*document.users, *document.accounts, *self._logged_in()}
            result = self._scan.scan(before, sorted(names), document.remove_keys)
            self._scanned = self._scanned if result is None else result

    def _note_settings(self) -> None:
        """Ask sshd for the settings that are reported, where they may have changed."""
        state = self._sshd.signature()
        if state != self._sshd_state:
            effective = self._sshd.effective()
            self._facts = {"sshd": {keyword: effective.one(keyword) for keyword in REPORTED_SSHD_SETTINGS}}
            self._sshd_state = state

    def _state_facts(self, document: HostDocument) -> Dict[str, Any]:
        facts: Dict[str, Any] = {
            "accounts": self._accounts.facts(document.accounts),
            "logins": self._logins,
            "plan": self._plan,
        }
        if self._host_key_scan.port is not None:
            facts["ssh_port"] = self._host_key_scan.port
        if self._enforcement is None:
            facts["enforcement"] = "unmanaged"
        else:
            facts["enforcement"] = _ENFORCEMENT_WORDS.get(self._enforcement.state, "unknown")
            if self._enforcement.state == ON and not self._enforcement.shown:
                facts["enforcement"] = UNPROVEN
            if document.mode == OBSERVE and self._shut_out:
                facts["shut_out"] = self._shut_out
            if self._enforcement.state == UNDONE:
                facts["undone"] = self._enforcement.why
                facts["begun"] = self._enforcement.begun
        return facts

    def _refused_logins(self, document: HostDocument) -> Dict[str, Dict[str, Any]]:
        """Which keys do not open their accounts, for a report. While this host observes, sshd need not read Keyrack's
        files.
        """
        enforces = self._enforcement is None or self._enforcement.state in (TRYING, ON)
        reads = self._keys_folder if enforces and not document.deleted else None
        return refused_logins.as_reported(self._login_check, self._sshd, self.allowed(document), reads)

    def _whom_enforcing_shuts_out(self, document: HostDocument) -> str:
        """Whom enforcing would shut out, in words; empty where that is unknown or this host does not observe."""
        if self._enforcement is None or document.mode != OBSERVE or self._scanned is None or self._scan.is_running:
            return ""
        # An incomplete scan may have missed keys that enforcing would shut out.
        unseen = _scan_words(self._scanned)
        others = self._sshd.others()
        if others:
            return f"another sshd listens at {others}, and enforcing binds this one alone"
        return unseen or self._enforcement.shuts_out(self.allowed(document), self._scanned.keys)

    def _what_enforcing_changes(self, document: HostDocument) -> Dict[str, Any]:
        """The plan of what enforcing would change in sshd's files and settings, for a report; empty where this host
        enforces already or does not change settings.
        """
        if self._enforcement is None or document.mode != OBSERVE or document.deleted:
            self._planned = ()
            return {}
        state = (document, self._sshd.signature())
        if state == self._planned:
            return self._plan
        # Here, as it loads difflib, which a host that enforces never needs.
        from keyrack.agent.sshd import plan

        allowed = self.allowed(document)
        folder, settings = self._state_folder, self._enforcement.settings(allowed)
        self._planned = state
        return plan.as_reported(folder, self._enforcement.path, settings, allowed, self._login_check, self._sshd)

    def _unmanaged(self, document: HostDocument) -> List[str]:
        words: List[str] = []
        if document.deleted:
            return words
        if document.mode != "enforce":
            words.append("this agent does not change sshd's settings, so it can neither observe nor enforce by itself")
        try:
            effective = self._sshd.effective()
            wrong = [keyword for keyword, value in document.sshd.items() if effective.one(keyword) != value]
        except SshdProblem:
            wrong = list(document.sshd)
        if wrong:
            words.append(f"this agent does not change sshd's settings; set by hand: {', '.join(sorted(wrong))}")
        return words

    def _digest(self) -> str:
        """A digest of the found keys as they are reported; empty before the first scan."""
        if self._scanned is None:
            return ""
        return unmanaged_keys.digest(self._scanned.keys + self._foreign, self._scanned.cut)

    def _state(self) -> Tuple[object, ...]:
        return (repr(sorted(self._facts.items())), self._digest(), self._host_keys)


def _scan_words(result: ScanResult) -> str:
    """What a scan did not see, in words; empty where it saw everything."""
    words = [result.unlisted] if result.unlisted else []
    if result.cut:
        first = result.cut[0]
        where = " ".join(filter(None, (first.path, f"of {first.username}" if first.username else ""))) or "all of it"
        words.append(f"the look for keys was cut in {count(len(result.cut), 'place')}, first {where}: {first.why}")
    return "; ".join(words)[:300].encode("ascii", "replace").decode("ascii")


def offline_words(document: HostDocument, silent: float) -> str:
    """What the offline policy does after so many seconds of the service's silence, in words; empty for nothing."""
    after, then = document.offline_policy
    if not after or silent < after:
        return ""
    since = f"the service confirmed nothing for {_span(silent)}, more than the {_span(after)} it allows"
    if then == DROP_ALL:
        return f"{since}: ALL keys are dropped until it answers"
    if then == DROP_TEMPORARY:
        return f"{since}: temporary keys are dropped until it answers"
    return f"{since}: keys stay as they are, as it asked (keep)"


def as_offline(document: HostDocument, silent: float) -> HostDocument:
    """The document without the keys that the offline policy drops after so many seconds of silence."""
    after, then = document.offline_policy
    if not after or silent < after or then == KEEP_ALL:
        return document
    users = {
        name: tuple(key for key in keys if _is_kept(document, name, key, then)) for name, keys in document.users.items()
    }
    return document._replace(users={name: keys for name, keys in users.items() if keys or then != DROP_ALL})


def ending_earlier(document: HostDocument, seconds: int) -> HostDocument:
    """The document with all ends so many seconds earlier, for a host whose clock is behind the service's."""
    if not seconds:
        return document

    def moved(end: datetime) -> datetime:
        # Not the end itself less the seconds: with an absurd time of the service, that would be before the year 1.
        return _BEGINNING + max(timedelta(0), end - _BEGINNING - timedelta(seconds=seconds))

    def earlier(keys: Iterable[AuthorizedKey]) -> Tuple[AuthorizedKey, ...]:
        return tuple(key if key.expires_at is None else key._replace(expires_at=moved(key.expires_at)) for key in keys)

    return document._replace(
        users={name: earlier(keys) for name, keys in document.users.items()},
        frozen={name: earlier(keys) for name, keys in document.frozen.items()},
    )


def _is_kept(document: HostDocument, name: str, key: AuthorizedKey, then: str) -> bool:
    """Whether a key is kept by the offline policy `then`: break-glass keys always are, as they are for such times."""
    return (then != DROP_ALL and key.expires_at is None) or key.public_key in document.break_glass.get(name, ())


def silence(status: Status) -> float:
    """Seconds since the service confirmed the document that was in force before a restart; at least 0.

    The longer of two measures: this host's clock may have been set back, and the clock since the boot does not count
    the time while a virtual machine was paused.
    """
    same_boot = status.confirmed_since_boot and status.boot and status.boot == boot_id()
    seconds = since_boot() - status.confirmed_since_boot if same_boot else 0.0
    confirmed_at = status.confirmed_at or status.contact_at
    return max(0.0, seconds, time.time() - confirmed_at if confirmed_at else 0.0)


def _span(seconds: float) -> str:
    for name, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {name}s"
    return f"{int(seconds)} seconds"
