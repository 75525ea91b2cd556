"""The document that this host obeys: checks a new one, remembers it, has its files put in place; it asks nobody.

What is checked before a document is obeyed (Invariant 6), in this order, and all of it before anything is changed:
(1) the service's signature over the exact text, by the host's own ssh-keygen; (2) that every part of it is of the
known form; (3) that it is for this very host; (4) that it is newer than the last one obeyed. If one fails, the last
good state stays.
"""

from __future__ import annotations

from typing import List, NamedTuple, Optional

from keyrack.agent import signature
from keyrack.agent.folder import FolderProblem
from keyrack.agent.key_files import KeyFiles, Outcome, Rendered, render
from keyrack.agent.memory import Accepted, Enrolment, Memory
from keyrack.ssh import host_document
from keyrack.ssh.host_document import DocumentError, HostDocument


class Refused(Exception):
    """A document that this host does not obey; the words say why."""


class Failed(Exception):
    """Something of this host that keeps a document from being obeyed, for now."""


class _Checked(NamedTuple):
    document: HostDocument
    rendered: Rendered


class Orders:
    """What one enrolled host obeys. Nothing is in force until recall() or take() found a good document."""

    def __init__(self, memory: Memory, enrolment: Enrolment) -> None:
        self._memory = memory
        self._enrolment = enrolment
        self._checked: Optional[_Checked] = None

    @property
    def document(self) -> Optional[HostDocument]:
        """The document in force; None where there is none."""
        return self._checked.document if self._checked else None

    @property
    def revision(self) -> int:
        """The revision of the document in force; 0: none."""
        return self._checked.document.revision if self._checked else 0

    def recall(self) -> None:
        """Obey again what was obeyed before a restart, where there is such a thing.

        Raises Refused, Failed or MemoryProblem; then files stay as they are: a damaged note of ours is no
        reason to change who may log in.
        """
        accepted = self._memory.accepted()
        if accepted is not None:
            self._checked = self._check(accepted)

    def take(self, new: Accepted, applied: int) -> None:
        """Obey this document from now on, and remember it. applied: the last revision that was put in place.

        Raises Refused or Failed, and changes nothing then.
        """
        checked = self._check(new)
        # Check (4). Where the document in force was lost, the number that was noted still counts.
        known = self.revision if self._checked else applied - 1
        if checked.document.revision <= known:
            raise Refused(
                f"its revision {checked.document.revision} is not newer than {known}, which is in force here "
                "(a service restored from a backup must issue a newer one)"
            )
        try:
            # Remember first, then act: after a power cut in between, the newer one is put in place again.
            self._memory.accept(new)
        except OSError as error:
            folder = self._memory.folder.path
            raise Failed(f"a new document waits: {folder} cannot be written: {error.strerror}") from None
        self._checked = checked

    def put(self) -> Outcome:
        """Make the files on disk what the document in force says; nothing is done where there is none."""
        if self._checked is None:
            return Outcome((), ())
        # Opened anew each time: where somebody moved the folders away, they are made again.
        try:
            files = KeyFiles.open(self._enrolment.keys_folder, self._enrolment.revoked_keys, create=True)
        except FolderProblem as problem:
            return Outcome((), (str(problem),))
        except OSError as error:
            return Outcome((), (f"{error.filename or self._enrolment.keys_folder}: {error.strerror}",))
        try:
            return files.put(self._checked.rendered)
        finally:
            files.close()

    def unmet(self) -> List[str]:
        """What the document asks for that this version leaves alone, so that nobody believes it done."""
        if self._checked is None:
            return []
        document = self._checked.document
        words = []
        if document.accounts:
            words.append("this agent does not create or remove accounts; do it by hand")
        if document.sshd:
            words.append("this agent does not change sshd's settings; do it by hand")
        if document.stale.after_seconds:
            words.append("this agent drops no keys when the service is silent; temporary ones end all the same")
        return words

    def _check(self, new: Accepted) -> _Checked:
        """Checks (1) to (3)."""
        try:
            signature.check(self._memory.folder, new.document, new.signature)
        except signature.SignatureProblem as problem:
            raise (Refused if problem.final else Failed)(str(problem)) from None
        except OSError as error:
            raise Failed(f"the document's signature could not be checked: {error.strerror}") from None
        try:
            document = host_document.decode(new.document)
        except DocumentError as error:
            raise Refused(str(error)) from None
        if document.host != self._enrolment.host:
            raise Refused("it is for another host")
        return _Checked(document, render(document))
