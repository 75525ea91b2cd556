"""The document that this host obeys: checks a new one, remembers it, has its files put in place; it asks nobody.

What is checked before a document is obeyed (Invariant 6), in this order, and all of it before anything is changed:
(1) the service's signature over the exact text, by the host's own ssh-keygen; (2) that every part of it is of the
known form; (3) that it is for this very host; (4) that it is newer than the last one obeyed. If one fails, the last
good state stays.
"""

from __future__ import annotations

import os
from typing import List, NamedTuple, Optional

from keyrack.agent.desired_state import DesiredState, as_offline, offline_words
from keyrack.agent.keys import unmanaged_keys
from keyrack.agent.keys.key_files import KeyFiles, Outcome, Rendered, render
from keyrack.agent.service import signature
from keyrack.agent.state import Accepted, Enrolment, StateFolder
from keyrack.agent.system.folder import FolderProblem
from keyrack.protocol import host_document
from keyrack.protocol.host_document import DocumentError, HostDocument
from keyrack.protocol.report import Report
from keyrack.ssh import public_key


class DocumentRefused(Exception):
    """A document that this host does not obey; the words say why."""


class Failed(Exception):
    """Something of this host that keeps a document from being obeyed, for now."""


class InForce(NamedTuple):
    """A document as far as this host obeys it. counted: without the keys that the service's silence has dropped."""

    document: HostDocument
    counted: HostDocument


class _Checked(NamedTuple):
    document: HostDocument
    allowed: HostDocument
    rendered: Rendered


class Reconciler:
    """What one enrolled host obeys. Nothing is in force until recall() or take() found a good document."""

    def __init__(self, state: StateFolder, enrolment: Enrolment, desired: Optional[DesiredState] = None) -> None:
        self._state_folder = state
        self._enrolment = enrolment
        self._desired = desired
        self._checked: Optional[_Checked] = None
        self._unmet: List[str] = []
        self._offline = ""
        self._in_force: Optional[InForce] = None

    @property
    def in_force(self) -> Optional[InForce]:
        """What counts since the last put(): the same object until something else does; None where there is nothing."""
        return self._in_force

    @property
    def revision(self) -> int:
        """The revision of the document in force; 0: none."""
        return self._checked.document.revision if self._checked else 0

    @property
    def lineage(self) -> str:
        """The mark of that revision; empty where it has none."""
        return self._checked.document.lineage if self._checked else ""

    @property
    def deleted(self) -> bool:
        """Whether the document in force says that the service does not serve this host any more."""
        return self._checked is not None and self._checked.document.deleted

    def recall(self) -> None:
        """Obey again what was obeyed before a restart, where there is such a thing.

        Raises DocumentRefused, Failed or StateProblem; then files stay as they are: a damaged note of ours is no
        reason to change who may log in.
        """
        accepted = self._state_folder.accepted()
        if accepted is not None:
            self._checked = self._check(accepted)

    def take(self, new: Accepted, applied: int) -> None:
        """Obey this document from now on, and remember it. applied: the last revision that was put in place.

        Raises DocumentRefused or Failed, and changes nothing then.
        """
        checked = self._check(new)
        # (4) It is newer than the last one obeyed.
        # Where the document in force was lost, the number that was noted still counts.
        known = self.revision if self._checked else applied - 1
        if checked.document.revision <= known:
            raise DocumentRefused(
                f"its revision {checked.document.revision} is not newer than {known}, which is in force here "
                "(a service restored from a backup must issue a newer one)"
            )
        try:
            # Remember first, then act: after a power cut in between, the newer one is put in place again.
            self._state_folder.accept(new)
        except OSError as error:
            full = "; ".join(self._state_folder.full())
            words = full or f"{self._state_folder.folder.path} cannot be written: {error.strerror}"
            raise Failed(f"a new document waits: {words}") from None
        self._checked = checked

    def put(self, *, new: bool = True, silent: float = 0.0, scan: bool = True) -> Outcome:
        """Make this host what the document in force says; nothing is done where there is none.

        new: that files differ is no surprise; silent: seconds since the service last confirmed the document;
        scan: look for keys that nobody told of, too.
        """
        if self._checked is None:
            return Outcome((), ())
        self._offline = offline_words(self._checked.document, silent)
        allowed = self._checked.allowed
        in_force = InForce(allowed, as_offline(allowed, silent))
        if in_force != self._in_force:
            self._in_force = in_force
        rendered = render(in_force.counted) if self._offline else self._checked.rendered
        # Opened anew each time: where somebody moved the folders away, they are made again.
        try:
            files = KeyFiles.open(self._enrolment.keys_folder, self._enrolment.revoked_keys, create=True)
        except FolderProblem as problem:
            return Outcome((), (str(problem),))
        except OSError as error:
            return Outcome((), (f"{error.filename or self._enrolment.keys_folder}: {error.strerror}",))
        try:
            if not new:
                self._remember_foreign(files, rendered)
            outcome = files.put(rendered)
        finally:
            files.close()
        if outcome.problems or self._desired is None:
            return outcome
        met = self._desired.put(self._checked.document, scan=scan)
        self._unmet = list(met.unmet)
        return Outcome(outcome.changed, (), met.put_back)

    def is_due(self, silent: float) -> bool:
        """Whether the service's silence means something else now than when the files were put."""
        return self._checked is not None and bool(offline_words(self._checked.document, silent)) != bool(self._offline)

    @property
    def hurry(self) -> bool:
        """Whether sshd and the service must be looked at every few seconds."""
        return self._desired is not None and self._desired.hurry

    @property
    def searching(self) -> bool:
        """Whether there is soon more to tell of keys that nobody told of."""
        return self._desired is not None and self._desired.searching

    @property
    def news(self) -> bool:
        """Whether there is something to tell of this host beyond its files."""
        return self._desired is not None and self._desired.news

    def told(self) -> Report:
        """What a report has of it."""
        return Report() if self._desired is None else self._desired.told()

    def delivered(self) -> None:
        """The service has them."""
        if self._desired is not None:
            self._desired.delivered()

    def begin(self) -> None:
        """After a start, before anything else."""
        if self._desired is not None:
            self._desired.begin()

    def heard(self, answered: bool) -> None:
        """Whether the service answered just now."""
        if self._desired is not None:
            self._desired.heard(answered)

    def unmet(self) -> List[str]:
        """What is not as the document asks beyond the files, so that nobody believes it done."""
        if self._checked is None:
            return []
        words = list(self._unmet)
        if self._desired is None:
            if self._checked.document.accounts:
                words.append("this agent does not create or remove accounts; do it by hand")
            if self._checked.document.sshd:
                words.append("this agent does not change sshd's settings; do it by hand")
        return words + ([self._offline] if self._offline else [])

    def _remember_foreign(self, files: KeyFiles, rendered: Rendered) -> None:
        """Note the keys in files that somebody changed, before they are put back: the service is told of them."""
        if self._desired is None or self._checked is None:
            return
        changed = files.changed_files(rendered)
        if changed:
            entries = [entry for entries in self._checked.document.users.values() for entry in entries]
            ours = {public_key.read_canonical(entry.key).sha256 for entry in entries}
            for name, data in changed.items():
                path = os.path.join(self._enrolment.keys_folder, name)
                self._desired.note_foreign(unmanaged_keys.foreign(path, name, data, ours))

    def _check(self, new: Accepted) -> _Checked:
        """Checks (1) to (3); take() has the fourth, as a document that is recalled is no newer than itself."""
        # (1) The service signed this exact text.
        try:
            signature.check(self._state_folder.folder, new.document, new.signature)
        except signature.DocumentSignatureProblem as problem:
            raise (DocumentRefused if problem.final else Failed)(str(problem)) from None
        except OSError as error:
            full = "; ".join(self._state_folder.full())
            raise Failed(f"the document's signature could not be checked: {full or error.strerror}") from None
        # (2) Every part of it is of the known form.
        try:
            document = host_document.decode(new.document)
        except DocumentError as error:
            raise DocumentRefused(str(error)) from None
        # (3) It is for this very host.
        if document.host != self._enrolment.host:
            raise DocumentRefused("it is for another host")
        allowed = document if self._desired is None else self._desired.allowed(document)
        return _Checked(document, allowed, render(allowed))
