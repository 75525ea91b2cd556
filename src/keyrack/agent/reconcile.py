"""The document that this host obeys: checks a new one, saves it, and has its files put in place; must not ask the
service.

Before a document is obeyed (Invariant 6), these checks are made in this order, and all of them before anything is
changed: (1) the service signed this exact text; (2) every part of it is of the known form; (3) it is for this very
host; (4) it is newer than the last one obeyed. If one fails, the last good state stays.
"""

from __future__ import annotations

import math
import os
import threading
import time
from typing import Callable, List, NamedTuple, Optional, Tuple

from keyrack.agent.desired_state import DesiredState, as_offline, ending_earlier, offline_words
from keyrack.agent.keys import unmanaged_keys
from keyrack.agent.keys.ends import IN_UTC, Ends, EndWriter, moments_of, next_end
from keyrack.agent.keys.key_files import KeyFiles, KeyFilesOutcome, Rendered, differ_by_ends, render
from keyrack.agent.service import signature
from keyrack.agent.service.service_clock import ServiceClock
from keyrack.agent.sshd.probe import ASK_SECONDS
from keyrack.agent.sshd.settings import Sshd
from keyrack.agent.state import Accepted, Enrolment, StateFolder
from keyrack.agent.system import threads
from keyrack.agent.system.folder import FolderProblem
from keyrack.protocol import host_document
from keyrack.protocol.host_document import DocumentError, HostDocument
from keyrack.protocol.report import Report
from keyrack.ssh import public_key

_CLOCK_SECONDS = 1.0  # how late an end may be noticed after the clock was set
_AGAIN_PAUSE_SECONDS = 0.5
AGAIN_SECONDS = ASK_SECONDS + 5.0  # so long after an end the files are checked again and again


class DocumentRefused(Exception):
    """A document that this host does not obey; the words say why."""


class Failed(Exception):
    """A problem of this host that prevents a document from being obeyed for now; the words say which."""


class InForce(NamedTuple):
    """A document as far as this host obeys it. counted: without the keys that the service's silence has dropped."""

    document: HostDocument
    counted: HostDocument


class _Checked(NamedTuple):
    document: HostDocument
    allowed: HostDocument
    rendered: Rendered


class _Put(NamedTuple):
    """The files as they were rendered last, with the document and the ends that they were rendered from."""

    document: HostDocument
    ends: Ends
    rendered: Rendered


class Reconciler:
    """What one enrolled host obeys. Nothing is in force before recall() or take() has accepted a document."""

    def __init__(
        self,
        state: StateFolder,
        enrolment: Enrolment,
        desired: Optional[DesiredState] = None,
        allowed: Callable[[HostDocument], HostDocument] = lambda document: document,
    ) -> None:
        """desired: does what a document asks beyond key files, None for nothing; allowed: answers the part of a
        document that counts on this host, used only without `desired`, which decides it otherwise.
        """
        self._allowed = allowed if desired is None else desired.allowed
        self._state_folder = state
        self._enrolment = enrolment
        self._desired = desired
        self._checked: Optional[_Checked] = None
        self._unmet: List[str] = []
        self._offline = ""
        self._in_force: Optional[InForce] = None
        self._counted: Optional[HostDocument] = None  # with ends by the service's clock
        self._in_host_time: Optional[Tuple[int, HostDocument, HostDocument]] = None
        self.clock = ServiceClock()
        self._ends = EndWriter(Sshd(enrolment.sshd_config))
        self._rendered: Optional[_Put] = None
        self._next_end = math.inf
        self._has_ends = False
        self._ours_ends = math.inf  # the next end that nobody but the agent sees to
        self._ends_problem = ""
        self._ends_changed = threading.Event()
        self._writing = threading.Lock()  # held while files are written and while what was rendered changes

    @property
    def in_force(self) -> Optional[InForce]:
        """What is in force since the last put(), the same object until it changes; None where nothing is."""
        return self._in_force

    @property
    def revision(self) -> int:
        """The revision of the document in force; 0 where there is none."""
        return self._checked.document.revision if self._checked else 0

    @property
    def lineage(self) -> str:
        """The mark of that revision; empty where it has none."""
        return self._checked.document.lineage if self._checked else ""

    @property
    def ends_earlier(self) -> int:
        """How many seconds earlier ends are written in the files, as this host's clock is behind the service's."""
        return 0 if self._in_host_time is None else self._in_host_time[0]

    @property
    def deleted(self) -> bool:
        """Whether the document in force says that this server was deleted."""
        return self._checked is not None and self._checked.document.deleted

    def recall(self, applied: int) -> None:
        """Obey the saved document again after a restart, if there is one. applied: the last revision that was put in
        place.

        Raises DocumentRefused, Failed or StateProblem; then files stay as they are: a damaged note must not change who
        may log in.
        """
        accepted = self._state_folder.accepted()
        if accepted is not None:
            checked = self._check(accepted)
            # A document is saved before it is put in place. So an older one here is an old copy of the note, which may
            # let in keys that were revoked since.
            _check_not_older(checked, applied)
            self._checked = checked

    def take(self, new: Accepted, applied: int) -> None:
        """Obey this document from now on, and save it. applied: the last revision that was put in place.

        Raises DocumentRefused or Failed, and then changes nothing.
        """
        checked = self._check(new)
        # (4) It is newer than the last one obeyed.
        # Where the saved document was lost, the applied revision still counts; this document may be the lost one.
        if self._checked is None:
            _check_not_older(checked, applied)
        elif checked.document.revision <= self.revision:
            raise DocumentRefused(
                f"its revision {checked.document.revision} is not newer than {self.revision}, which is in force here "
                "(a service restored from a backup must issue a newer one)"
            )
        try:
            # Save first, then act: after a power cut in between, the new document is put in place at the next start.
            self._state_folder.accept(new)
        except OSError as error:
            full = "; ".join(self._state_folder.full())
            words = full or f"{self._state_folder.folder.path} cannot be written: {error.strerror}"
            raise Failed(f"a new document waits: {words}") from None
        self._checked = checked

    def put(self, *, new: bool = True, silent: float = 0.0, scan: bool = True) -> KeyFilesOutcome:
        """Make this host what the document in force says; do nothing where there is none.

        new: files are expected to differ; silent: seconds since the service last confirmed the document; scan: also
        scan for unmanaged keys.
        """
        if self._checked is None:
            return KeyFilesOutcome((), ())
        self._state_folder.keep_room()
        self._offline = offline_words(self._checked.document, silent)
        allowed = self._checked.allowed
        counted = as_offline(allowed, silent)
        behind = self.clock.behind()
        in_force = InForce(ending_earlier(allowed, behind), ending_earlier(counted, behind))
        if self._in_force is None or in_force != self._in_force:
            self._in_force = in_force
        try:
            with self._writing:
                if self._counted is None or counted != self._counted:
                    self._counted = counted
                outcome = self._write(self._counted, new=new)
        except FolderProblem as problem:
            return KeyFilesOutcome((), (str(problem),))
        except OSError as error:
            return KeyFilesOutcome((), (f"{error.filename or self._enrolment.keys_folder}: {error.strerror}",))
        if outcome.problems or self._desired is None:
            return outcome
        met = self._desired.put(ending_earlier(self._checked.document, behind), scan=scan)
        self._unmet = list(met.unmet)
        return KeyFilesOutcome(outcome.changed, (), met.put_back)

    def _write(self, counted: HostDocument, *, new: bool) -> KeyFilesOutcome:
        """Write the files of a document as it counts now. Raises FolderProblem or OSError."""
        counted = self._host_time(counted)
        ends = self._ends.ends_of(counted)
        last = self._rendered
        if last is None or last.document is not counted or last.ends != ends:
            checked = self._checked
            is_usual = checked is not None and checked.allowed is counted and ends == IN_UTC
            rendered = checked.rendered if checked is not None and is_usual else render(counted, ends)
            last = self._rendered = _Put(counted, ends, rendered)
        self._next_end, self._ends_problem = next_end(counted, ends), ends.problem
        ours = self._next_end if ends.by_agent else math.inf
        has_ends = bool(moments_of(counted))
        if (ours, has_ends) != (self._ours_ends, self._has_ends):
            self._ours_ends, self._has_ends = ours, has_ends
            self._ends_changed.set()
        # Opened each time: if somebody moved the folders away, they are made again.
        files = KeyFiles.open(self._enrolment.keys_folder, self._enrolment.revoked_keys, create=True)
        try:
            by_time = () if new else self._differences(files, last)
            outcome = files.put(last.rendered)
        finally:
            files.close()
        return outcome._replace(changed=tuple(path for path in outcome.changed if path not in by_time))

    def _host_time(self, document: HostDocument) -> HostDocument:
        """A document with its ends by this host's clock; the same object while neither changes."""
        behind, last = self.clock.behind(), self._in_host_time
        if last is None or last[0] != behind or last[1] is not document:
            last = self._in_host_time = behind, document, ending_earlier(document, behind)
        return last[2]

    def _clock_was_set(self) -> bool:
        """Whether this host's clock was set since ends were written, so that they must be written again."""
        return self._has_ends and self.ends_earlier != self.clock.behind()

    def start_ending_keys(self, say: Callable[[str], None]) -> None:
        """Until the process ends, remove keys at their ends where sshd cannot read ends, and write ends again when this
        host's clock was set back.

        On a thread of its own, as the others may be waiting for the service. Raises OSError where none can be started.
        """
        threads.begin(threading.Thread(target=self._end_keys_for_good, args=(say,), name="ends", daemon=True))

    def _end_keys_for_good(self, say: Callable[[str], None]) -> None:
        again_until = 0.0
        while True:
            left = self._ours_ends - time.time()
            if time.monotonic() < again_until:
                left = min(left, _AGAIN_PAUSE_SECONDS) if left > 0 else _AGAIN_PAUSE_SECONDS
            # Wait _CLOCK_SECONDS at most: somebody may set the clock.
            self._ends_changed.wait(max(0.0, min(left, _CLOCK_SECONDS)) if self._has_ends else None)
            self._ends_changed.clear()
            is_due = self._clock_was_set() or time.time() >= self._ours_ends
            if not is_due and time.monotonic() >= again_until:
                continue
            if is_due:
                # A question to sshd that runs meanwhile (proof.py) restores a file as it was when the question began.
                again_until = time.monotonic() + AGAIN_SECONDS
            try:
                words = self.end_keys()
            except Exception as error:  # the thread must go on: the next try may succeed
                words = [f"a key that has ended could not be taken away: {type(error).__name__}: {error}"]
            for problem in words:
                say(problem)

    def end_keys(self) -> List[str]:
        """Remove keys that have ended since the files were written. Answers in words what could not be removed."""
        with self._writing:
            if self._counted is None:
                return []
            try:
                return list(self._write(self._counted, new=True).problems)
            except (FolderProblem, OSError) as problem:
                return [f"a key that has ended could not be taken away: {problem}"]

    def is_due(self, silent: float) -> bool:
        """Whether the files must be written again: the offline policy applies now or no longer, a key has ended that
        the agent must remove, or the clock was set.
        """
        if self._checked is None:
            return False
        is_offline = bool(offline_words(self._checked.document, silent))
        return is_offline != bool(self._offline) or time.time() >= self._next_end or self._clock_was_set()

    @property
    def is_offline(self) -> bool:
        """Whether the offline policy applied when the files were last written."""
        return bool(self._offline)

    @property
    def on_trial(self) -> bool:
        """Whether sshd and the service must be checked every few seconds, as enforcing is on trial."""
        return self._desired is not None and self._desired.on_trial

    @property
    def scanning(self) -> bool:
        """Whether a scan for unmanaged keys runs, or a key pair is being made, whose result will be reported."""
        return self._desired is not None and self._desired.scanning

    @property
    def has_unreported(self) -> bool:
        """Whether something of to_report() has not been delivered yet."""
        return self._desired is not None and self._desired.has_unreported

    def to_report(self) -> Report:
        """The part of a report that `desired` knows."""
        return Report() if self._desired is None else self._desired.to_report()

    def delivered(self) -> None:
        """Note that the service has received the last to_report()."""
        if self._desired is not None:
            self._desired.delivered()

    def begin(self) -> None:
        """Called after a start, before anything else."""
        if self._desired is not None:
            self._desired.begin()

    def note_contact(self, answered: bool) -> None:
        """Note whether the service answered just now."""
        if self._desired is not None:
            self._desired.note_contact(answered)

    def unmet(self) -> List[str]:
        """What the document asks beyond the files and was not done, in words."""
        if self._checked is None:
            return []
        words = list(self._unmet)
        if self._desired is None:
            if self._checked.document.accounts:
                words.append("this agent does not create or remove accounts; do it by hand")
            if self._checked.document.sshd:
                words.append("this agent does not change sshd's settings; do it by hand")
        return words + [said for said in (self._ends_problem, self._offline) if said]

    def _differences(self, files: KeyFiles, wanted: _Put) -> Tuple[str, ...]:
        """Note foreign keys in files that somebody changed, for a report, before the files are put back. Answers the
        paths of files that differ only by how ends are written or by keys that have ended.
        """
        changed = files.changed_files(wanted.rendered)
        if not changed:
            return ()
        whole = render(wanted.document).users
        by_ends = []
        for name, data in changed.items():
            path = os.path.join(self._enrolment.keys_folder, name)
            if name in whole and differ_by_ends(data, wanted.rendered.users[name], whole[name]):
                by_ends.append(path)
            elif self._desired is not None:
                keys = [key for keys in wanted.document.users.values() for key in keys]
                ours = {public_key.read_canonical(key.public_key).fingerprint for key in keys}
                self._desired.note_foreign(unmanaged_keys.foreign(path, name, data, ours))
        return tuple(by_ends)

    def _check(self, new: Accepted) -> _Checked:
        """Make checks (1) to (3); take() makes the fourth, which a recalled document cannot pass. Raises
        DocumentRefused.
        """
        # (1) The service signed this exact text.
        try:
            signature.check(self._enrolment.signing_key, new.document, new.signature)
        except signature.DocumentSignatureProblem as problem:
            raise DocumentRefused(str(problem)) from None
        # (2) Every part of it is of the known form.
        try:
            document = host_document.decode(new.document, self._checked.document if self._checked else None)
        except DocumentError as error:
            raise DocumentRefused(str(error)) from None
        # (3) It is for this very host.
        if document.host != self._enrolment.host:
            raise DocumentRefused("it is for another host")
        self.clock.is_past(document.issued_at.timestamp())
        allowed = self._allowed(document)
        return _Checked(document, allowed, render(allowed))


def _check_not_older(checked: _Checked, applied: int) -> None:
    """Raise DocumentRefused for a document older than the one put in place last."""
    if checked.document.revision < applied:
        raise DocumentRefused(f"its revision {checked.document.revision} is older than {applied}, in force here")
