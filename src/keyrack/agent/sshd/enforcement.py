"""Switches enforcing on and off, keeps it on, and undoes it by itself; must lock nobody out for good.

It begins only where a key of the document would really let somebody in (login_check.py), and it counts as on only where
the running sshd shows that it obeys (proof.py). From the first write until a minute after sshd read the settings,
every change is undone if anything fails: sshd would not start, does not do what was written, cannot be reloaded, or
greets nobody; a file cannot be written; the service can no longer be reached; the agent is killed. Once it was undone
or did not begin, enforcing stays off until the service asks for observing first.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import time
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from keyrack.agent.sessions import recent_logins
from keyrack.agent.sshd import drop_in, login_verdict, originals, probe, shut_out
from keyrack.agent.sshd.enforcement_record import NOTE, OFF, ON, TRYING, UNDONE, Record, read
from keyrack.agent.sshd.login_check import LoginCheck
from keyrack.agent.sshd.login_verdict import Verdict
from keyrack.agent.sshd.originals import Original
from keyrack.agent.sshd.proof import NOT_OBSERVED, Observation, SshdProof
from keyrack.agent.sshd.settings import GREETING_SECONDS, Sshd, SshdProblem, SshdSilent
from keyrack.agent.sshd.settings_files import SettingsFiles
from keyrack.agent.sshd.tried_settings import tried
from keyrack.agent.state import Enrolment, StateFolder, StateProblem
from keyrack.agent.system import local, programs
from keyrack.agent.system.folder import PUBLIC_FOLDER, Folder, FolderProblem
from keyrack.protocol.host_document import HostDocument
from keyrack.protocol.report import COMMAND, ReportedKey

TRIAL_SECONDS = 60.0
LASTING_SECONDS = 600.0  # a key that ends sooner does not count as a way in
NOBODY = "nobody"  # the answer of shuts_out() where enforcing would shut nobody out
_MAX_ACCOUNTS = 500  # that sshd is asked about one by one, where Match rules may name single accounts


class _Broken(Exception):
    """A step that must be undone; the words say why."""


# All errors that a step may end with. After any of them the changes are undone.
_FAILURES = (_Broken, OSError, FolderProblem, StateProblem, SshdProblem, ValueError)


class Enforcement:
    """sshd's side of one enrolled host, where its administrator lets the agent change sshd's settings."""

    def __init__(
        self,
        state: StateFolder,
        enrolment: Enrolment,
        path: str,
        say: Callable[[str], None],
        trial: float = TRIAL_SECONDS,
    ) -> None:
        self._state_folder = state
        self._enrolment = enrolment
        self._path = path
        self._say = say
        self._trial = trial
        self._chain = local.read(state).chain_keys_command
        self.sshd = Sshd(enrolment.sshd_config)
        self._files = SettingsFiles(self.sshd, path)
        self._check = LoginCheck(self.sshd, enrolment.keys_folder)
        self._proof = SshdProof(self.sshd, enrolment, self._check)
        self._shown = NOT_OBSERVED
        self._reloaded = True  # an agent before this one may have done it
        self._reloaded_for: Tuple[object, ...] = ()
        self._words: List[str] = []
        self._unsaved = False
        self._record = read(state)
        self._tried_at = 0.0
        self._answered_at = 0.0
        self._silent = False
        self._failed: Optional[Tuple[object, Tuple[str, ...]]] = None
        self._unanswered = False
        self._judged: Optional[Tuple[object, str]] = None
        self._checked: Optional[Tuple[bytes, Tuple[object, ...]]] = None
        self._clean: Optional[Tuple[object, ...]] = None  # in which state sshd's settings have nothing of ours
        self.put_back: List[str] = []

    @property
    def login_check(self) -> LoginCheck:
        """The check that judges who can log in."""
        return self._check

    @property
    def path(self) -> str:
        """The path of the settings file that it writes, where sshd can include one."""
        return self._path

    @property
    def state(self) -> str:
        """OFF, TRYING, ON or UNDONE."""
        return self._record.state

    @property
    def why(self) -> str:
        """Why it was undone, in words."""
        return self._record.why

    @property
    def begun(self) -> bool:
        """For UNDONE: whether enforcing had begun at all."""
        return self._record.begun

    @property
    def shown(self) -> bool:
        """Whether the running sshd showed at the last check that it obeys."""
        return self._shown.obeys is True

    @property
    def before(self) -> Tuple[str, ...]:
        """The AuthorizedKeysFile patterns that counted for any account before enforcing."""
        return self._record.before

    def note_contact(self, answered: bool) -> None:
        """Note whether the service answered just now."""
        self._silent = not answered
        if answered:
            self._answered_at = time.monotonic()

    def begin(self) -> None:
        """Called after a start: undo a step that an earlier agent did not finish, as nothing showed that it works."""
        if self._record.step is not None:
            self._undo("the agent was stopped before it was sure that logins work")

    def put(self, document: HostDocument, *, full: bool = True) -> List[str]:
        """Make sshd's settings what the document says. Answers in words what could not be done.

        full: also ask the running sshd whether it obeys, and judge who can log in; otherwise both stay as last judged.
        """
        try:
            if self._unsaved:
                self._keep(self._record)
            return self._put(document, full=full)
        except _FAILURES as problem:
            self._shown = Observation(None, _said(problem)) if full else self._shown
            return [f"sshd's settings: {_said(problem)}"]

    def off(self) -> List[str]:
        """Restore the host's own settings as they were. Answers in words what could not be done."""
        if self._record.state in (OFF, UNDONE) and not self._record.files:
            self._note_left_behind()
        if self._record.state in (OFF, UNDONE) and not self._record.files:
            self._remove_folders()  # the agent may have been killed after it made one
            self._keep(Record())
            return []
        problems = originals.restore_all([self._as_edited(original) for original in self._record.files])
        if problems:
            return problems
        untold = self._reload_own_settings()
        if untold:
            # The record stays: sshd may still read Keyrack's files, which must not be removed before it stops doing so.
            return [untold]
        self._remove_folders()
        self._keep(Record())
        self._checked = None
        self._proof.forget()
        self._say("sshd has its own settings again")
        return []

    def settings(self, document: HostDocument) -> Dict[str, str]:
        """The settings of sshd that enforcing this document needs, keyword to value."""
        return drop_in.wanted(
            self._enrolment.keys_folder, self._enrolment.revoked_keys, document.sshd, chain=self._chain
        )

    def accounts(self) -> List[Optional[str]]:
        """The accounts to ask sshd about: None for everybody, and each account where Match rules may differ by it."""
        if not any(line.keyword == "match" for line in self.sshd.lines()):
            return [None]
        return [None, *sorted({account.pw_name for account in pwd.getpwall()})[:_MAX_ACCOUNTS]]

    def shuts_out(self, document: HostDocument, keys: Sequence[ReportedKey]) -> str:
        """Whom enforcing this document would shut out, or why it could not begin, in words; NOBODY where it shuts
        nobody out. keys: all keys of a complete scan. Raises SshdProblem or OSError.
        """
        state = (document, tuple(keys), self.sshd.signature())
        if self._judged is None or self._judged[0] != state:
            there = [one for one in keys if one.in_force and not (self._chain and one.kind == COMMAND)]
            words = shut_out.words(there, document)
            self._judged = (state, words or self._cannot_begin(document, self.settings(document)) or NOBODY)
        return self._judged[1]

    def missing(self, settings: Mapping[str, str], config: Optional[str] = None) -> List[str]:
        """Where sshd's settings (or those of another file, config) differ from these, in words. Raises SshdProblem."""
        differing: Dict[str, None] = {}
        accounts = self.accounts()
        if self.sshd.running.arguments():
            # For an account, `sshd -T` applies Match blocks, which override the command line.
            accounts = ["root" if account is None else account for account in accounts]
        for account in accounts:
            for keyword, value, now in drop_in.missing(self.sshd.effective(account, config), settings):
                whom = f" for {account}" if account else ""
                differing.setdefault(f"sshd has {keyword} {now}{whom} instead of {value}")
            if len(differing) > 5:
                break
        return list(differing)

    def _put(self, document: HostDocument, *, full: bool) -> List[str]:
        self.put_back = []
        if document.mode != "enforce":
            problems = self.off()
            unmet = ["sshd's settings are left alone as long as this host only observes"] if document.sshd else []
            return problems + unmet
        if self._record.state == UNDONE:
            problems = self._roll_back() if self._record.step is not None else []
            return [self._undone_words(), *problems]
        settings = self.settings(document)
        wanted = drop_in.render(settings)
        state = (wanted, self.sshd.signature())
        if self._failed is not None and self._failed[0] == state:
            return list(self._failed[1])
        if self._record.state == TRYING:
            self._watch(document)
            if self._record.state == UNDONE:
                return [self._undone_words()]
        if self._checked == state:
            return self._check_running(document) if full else list(self._words)
        self._failed = None
        if self._record.state == OFF:
            return self._start(document, settings, wanted)
        problems = self._step(document, settings, wanted)
        if problems:
            # Where sshd did not answer, the settings may be good: they are tried again at the next check.
            if not self._unanswered:
                self._failed = ((wanted, self.sshd.signature()), tuple(problems))
            return problems
        self._checked = (wanted, self.sshd.signature())
        return self._check_running(document)

    def _start(self, document: HostDocument, settings: Mapping[str, str], wanted: bytes) -> List[str]:
        """Begin enforcing, or refuse to. A refusal stays (UNDONE): it must not begin later, when nobody expects it."""
        try:
            why = self._cannot_begin(document, settings)
            if not why:
                why = "; ".join(self._step(document, settings, wanted))
        except _FAILURES as problem:
            why = _said(problem)
        if why:
            # Files that could not be put back stay in the record, and are tried again at each check.
            self._keep_for_later(self._record._replace(state=UNDONE, why=why, begun=False))
            self._say(self._undone_words())
            return [self._undone_words()]
        self._checked = (wanted, self.sshd.signature())
        return self._check_running(document)

    def _cannot_begin(self, document: HostDocument, settings: Mapping[str, str]) -> str:
        """Why enforcing this document must not begin here, before anything is changed; empty where it may."""
        fault = self.sshd.problem()
        if fault is not None:
            return f"sshd's settings have a fault, and nothing was changed: {fault}"
        if not self.missing(self._keys_only()):
            return ""  # these files are the only way in already
        unwritable = self._files.unwritable(settings) or self.sshd.restart_problem()
        if unwritable:
            return f"nothing was changed: {unwritable}"
        if programs.find("ssh") is None:
            # A host may have only openssh-server; without the client the agent cannot ask sshd what it has read.
            return f"nothing was changed: {probe.NO_SSH}"
        with tried(self.sshd, settings, self._state_folder.folder.path) as copy:
            recent = recent_logins.read(self._state_folder, self.sshd)
            verdicts = self._check.verdicts(document, copy, recent)
            if login_verdict.opens_for_long(verdicts, max(self._trial, LASTING_SECONDS), recent):
                return self._on_command_line(settings, copy)
            whys = login_verdict.nobody_words(verdicts, max(self._trial, LASTING_SECONDS), recent)
        keys = "no key of this document opens an account of this host for long and without a forced command"
        return f"nobody could log in: {'; '.join(whys) or keys}"

    def _on_command_line(self, settings: Mapping[str, str], config: str) -> str:
        """Which settings sshd's command line overrides, in words; empty where it overrides none of these."""
        missing = self.missing(settings, config) if self.sshd.running.arguments() else []
        return f"nothing was changed: by its command line {'; '.join(missing)}" if missing else ""

    def _check_running(self, document: HostDocument) -> List[str]:
        """Ask the running sshd whether it obeys, and judge who can log in. Answers in words what is wrong."""
        verdicts = self._check.verdicts(document)
        shown = self._proof.show(verdicts)
        if shown.obeys is False and self._reloaded_for != self.sshd.listeners():
            # It may have been started with other settings than those on disk now: reload it once per start.
            self.sshd.reload()
            self._reloaded_for = self.sshd.listeners()
            shown = self._check_reloaded(verdicts)
        if bool(shown.obeys) != bool(self._shown.obeys):
            self._say("the running sshd shows that it obeys" if shown.obeys else f"not shown to obey: {shown.words}")
        self._shown = shown
        problems = [] if shown.obeys else [f"it is not shown that this host enforces: {shown.words}"]
        others = self.sshd.others()
        if others:
            problems.append(f"another sshd listens at {others}: whom it lets in is told, and nothing here binds it")
        if self._chain:
            problems += [drop_in.chained_words(command) for command in self.sshd.keys_commands()]
        self._words = problems + login_verdict.words_of(verdicts)
        return list(self._words)

    def _check_reloaded(self, verdicts: List[Verdict]) -> Observation:
        """What sshd shows after a reload; asked until it answers, GREETING_SECONDS at most."""
        deadline = time.monotonic() + GREETING_SECONDS
        while True:
            shown = self._proof.show(verdicts)
            if shown.obeys is not None or time.monotonic() > deadline:
                return shown
            time.sleep(0.2)

    def _step(self, document: HostDocument, settings: Mapping[str, str], wanted: bytes) -> List[str]:
        """Write the settings, have sshd check, read and obey them; undo all if one fails, and say so."""
        fault = self.sshd.problem()
        if fault is not None and self._files.stand(settings):
            return [f"sshd's settings have a fault, and nothing was changed: {fault}"]
        first, trying = self._record.state == OFF, self._record.state == TRYING
        self._reloaded, self._unanswered = trying, False
        try:
            in_force = first and not self.missing(self._keys_only())
            if first:
                self._record = self._record._replace(before=self._patterns())
            # Reload only for Keyrack's own changes: somebody else who changed the settings reloads sshd themselves.
            if self._write(settings, wanted):
                self._reload(first=first)
            shown = self._check_reloaded(self._check.verdicts(document))
            if shown.obeys is False or (first and not shown.obeys):
                raise _Broken(shown.words)
            self._shown = shown
            if first and not in_force:
                self._tried_at = self._answered_at = time.monotonic()
                self._keep(self._record._replace(state=TRYING))
                self._say(f"enforcing begins, and is taken back unless all is well for {self._trial:g} seconds")
            elif self._record.state != TRYING:
                self._keep(self._record._replace(state=ON, step=None))
        except _FAILURES as problem:
            self._unanswered = isinstance(problem, SshdSilent)
            left = self._roll_back()
            if trying:
                self._keep_for_later(self._record._replace(state=UNDONE, why=_said(problem)))
            if left:
                return [f"sshd's settings could not all be put back after: {_said(problem)}", *left]
            return [f"sshd's settings were put back as they were: {_said(problem)}"]
        return []

    def _reload(self, *, first: bool) -> None:
        """Have sshd read its settings. Raises _Broken where that fails, or where no sshd runs at the first step."""
        reloaded = self.sshd.reload()
        self._reloaded = reloaded.done
        if reloaded.problem:
            raise _Broken(reloaded.problem)
        if first and not reloaded.done:
            raise _Broken("sshd is not running, so nothing shows that anybody could log in")

    def _write(self, settings: Mapping[str, str], wanted: bytes) -> bool:
        """Write the settings where sshd reads them before all others. Answers whether that changed a file.

        Raises _Broken where sshd would not take them.
        """
        if not self._files.in_config:
            self._make_folder(os.path.dirname(self._path))
        now = self._files.read()
        known = {original.path for original in self._record.files}
        step = self._record.step or tuple(now)
        new = (original for original in now if original.path not in known)
        files = self._record.files + tuple(map(self._files.without_ours, new))
        # Saved before the first write: if the agent is killed then, the next one knows what to undo.
        self._keep(self._record._replace(step=step, files=files))
        changed = self._files.write(settings)
        fault = self.sshd.problem()
        if fault is None:
            fault = "; ".join(self.missing(settings)) or None
        if fault is not None:
            raise _Broken(fault)
        if self._checked is not None and self._checked[0] == wanted:
            self.put_back = [f"{path} was changed on this host; it is put back" for path in changed]
        return bool(changed)

    def _watch(self, document: HostDocument) -> None:
        """During the trial: undo enforcing where logins break; end the trial when its time is over and all is well."""
        if not self.sshd.greets(GREETING_SECONDS):
            self._undo("sshd greets nobody any more")
        elif time.monotonic() - self._tried_at >= self._trial:
            shown = self._proof.show(self._check.verdicts(document))
            if self._silent or self._answered_at <= self._tried_at:
                self._undo("the service could not be reached any more")
            elif shown.obeys is False:
                self._undo(shown.words)
            else:
                self._keep(self._record._replace(state=ON, step=None))
                self._say("enforcing is in force")

    def _undo(self, why: str) -> None:
        trying = self._record.state in (OFF, TRYING)
        self._roll_back()
        if trying:
            self._say(f"enforcing was undone: {why}")
            self._keep_for_later(self._record._replace(state=UNDONE, why=why))

    def _roll_back(self) -> List[str]:
        """Undo the step that is on trial. Answers in words what could not be undone, which is tried again later."""
        step = list(self._record.step or ())
        problems = originals.restore_all([self._as_edited(original) for original in step])
        if not problems and step:
            untold = self._reload_own_settings()
            # If sshd could not be reloaded for the step either, it still runs with its own settings.
            problems = [untold] if untold and self._reloaded else []
        self._checked = None
        self._proof.forget()
        for problem in problems:
            self._say(problem)
        if problems:
            return problems
        if self._record.state in (OFF, TRYING, UNDONE):
            self._remove_folders()
            self._keep_for_later(self._record._replace(files=(), step=None, folders=(), state=self._ended_state()))
        else:
            self._keep_for_later(self._record._replace(step=None))
        return []

    def _note_left_behind(self) -> None:
        """Record Keyrack's settings that are here without a record: of an image, or a removed state folder."""
        state = self.sshd.signature()
        if state == self._clean:
            return
        try:
            now = self._files.read()
        except FolderProblem:
            return  # others may write there, so Keyrack never wrote anything there
        files = tuple(map(self._files.without_ours, now))
        if files != tuple(now):
            self._say("sshd has settings of an agent whose folder is gone; they are taken away")
            self._keep(self._record._replace(files=files))
        else:
            self._clean = state

    def _reload_own_settings(self) -> str:
        """Have sshd read the host's own settings, which were restored. Answers why a running sshd may still obey
        Keyrack's, empty where none does.
        """
        try:
            fault = self.sshd.problem()
        except SshdSilent as problem:
            fault = str(problem)
        if fault is None:
            return self.sshd.reload().problem
        # A reload would end it, as sshd restarts itself and would refuse these settings.
        return f"sshd goes by Keyrack's settings until it can read its own: {fault}" if self.sshd.runs() else ""

    def _ended_state(self) -> str:
        return UNDONE if self._record.state == UNDONE else OFF

    def _undone_words(self) -> str:
        what = "enforcing was undone" if self._record.begun else "enforcing did not begin"
        return f"{what}: {self._record.why}; ask for observing, then for enforcing again"

    def _keys_only(self) -> Dict[str, str]:
        """The settings that enforcing needs for a document without settings of its own."""
        return drop_in.wanted(self._enrolment.keys_folder, self._enrolment.revoked_keys, {}, chain=self._chain)

    def _patterns(self) -> Tuple[str, ...]:
        """Every pattern of AuthorizedKeysFile that counts for any account now."""
        patterns: Dict[str, None] = {}
        lines = self.sshd.lines()
        for account in self.accounts():
            for pattern in self.sshd.effective(account).patterns("authorizedkeysfile", lines):
                patterns.setdefault(pattern)
        return tuple(patterns)

    def _as_edited(self, original: Original) -> Original:
        """The file to restore: as it was, or, where somebody changed it since, as it is now without Keyrack's part."""
        now = originals.read(original.path)
        if original.data is None or now.data is None or original.path == os.path.realpath(self._path):
            return original
        if now.data == original.data:
            return original
        theirs = self._files.without(now.data)
        if theirs == original.data:
            return original
        self._say(f"{original.path} was changed since; only what is Keyrack's in it is taken away")
        return now._replace(data=theirs)

    def _make_folder(self, path: str) -> None:
        if os.path.isdir(path):
            return
        self._keep(self._record._replace(folders=(*self._record.folders, path)))
        Folder.open(path, PUBLIC_FOLDER, create=True).close()

    def _remove_folders(self) -> None:
        """Remove the folders that the agent made, if they are empty."""
        for folder in reversed(self._record.folders):
            with contextlib.suppress(OSError):
                os.rmdir(folder)

    def _keep(self, record: Record) -> None:
        if record != self._record or self._unsaved:
            self._state_folder.save(NOTE, record.to_json())
            self._record, self._unsaved = record, False

    def _keep_for_later(self, record: Record) -> None:
        """Keep a record even where it cannot be saved now: the state UNDONE must count all the same."""
        try:
            self._keep(record)
        except (OSError, StateProblem) as problem:
            self._record, self._unsaved = record, True
            self._say(f"{self._state_folder.folder.path}: {_said(problem)}")


def _said(problem: BaseException) -> str:
    if isinstance(problem, OSError) and problem.strerror:
        return f"{problem.filename}: {problem.strerror}" if problem.filename else problem.strerror
    return str(problem)
