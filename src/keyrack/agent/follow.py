"""Follows the service: waits for a document, checks it, has it put in place, reports; it never guesses.

What is checked before a document is obeyed (Invariant 6), in this order, and each before anything is changed:
(1) the service's signature over the exact text, by the host's own ssh-keygen; (2) that every part of it is
of the known form; (3) that it is for this very host; (4) that it is newer than the last one obeyed. If one
fails, the last good state stays, and the service is told.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from keyrack import __version__
from keyrack.agent import signature
from keyrack.agent.contact import Answer, Contact, NoAnswer
from keyrack.agent.folder import FolderProblem
from keyrack.agent.key_files import KeyFiles, Outcome, Rendered, render
from keyrack.agent.memory import Accepted, Enrolment, Memory, MemoryProblem
from keyrack.ssh import host_document
from keyrack.ssh.host_document import DocumentError, HostDocument

WAIT_SECONDS = 25
LOOK_AGAIN_SECONDS = 30.0  # between two looks at the files on disk
FIRST_RETRY, LAST_RETRY = 0.2, 5.0  # seconds; short, so that a host obeys soon after the service is back
REFUSED_RETRY = 30.0  # after a clear no
NOTE_SECONDS = 60.0  # how old the time of the last contact in the status may get

APPLIED, REFUSED, FAILED = "applied", "refused", "failed"


class Refused(Exception):
    """A document that this host does not obey; the words say why."""


class Failed(Exception):
    """Something of this host that keeps a good document from being obeyed, for now."""


class _InForce(NamedTuple):
    document: HostDocument
    rendered: Rendered


class Follower:
    """One enrolled host. `step` does one exchange with the service and answers how long to pause after it."""

    def __init__(self, memory: Memory, enrolment: Enrolment, contact: Contact, say: Callable[[str], None]) -> None:
        self._memory = memory
        self._enrolment = enrolment
        self._contact = contact
        self._say = say
        self._in_force: Optional[_InForce] = None
        self._status = memory.status()
        self._noted = self._status
        self._report: Optional[Dict[str, Any]] = None
        self._refused: Optional[Tuple[str, str]] = None
        self._retry = FIRST_RETRY
        self._looked_at = 0.0

    @property
    def revision(self) -> int:
        """The newest revision that this host has accepted; 0: none yet."""
        return self._in_force.document.revision if self._in_force else self._status.revision

    def start(self) -> None:
        """Put the last good document in place again, without the service; words for what is in the way."""
        problems: List[str] = []
        try:
            accepted = self._memory.accepted()
            if accepted is not None:
                self._in_force = self._check(accepted)
        except (MemoryProblem, Refused, Failed) as problem:
            # The files stay as they are: a damaged note of ours is no reason to change who may log in.
            problems.append(f"the last document cannot be used again: {problem}")
            self._say(problems[0])
        was_finished = self._in_force is not None and self._in_force.document.revision == self._status.revision
        self._look(expected=not was_finished, problems=problems)

    def run(self) -> None:
        """Follow for good."""
        while True:
            time.sleep(self.step(WAIT_SECONDS))

    def step(self, wait: int) -> float:
        """Look at the files when it is time, tell what is to be told, ask for news and obey it."""
        if time.monotonic() - self._looked_at >= LOOK_AGAIN_SECONDS:
            self._look(expected=False, problems=[])
        began = time.monotonic()
        try:
            if not self._deliver_report():
                return self._pause_after_no()
            answer = self._contact.get(f"/agent/v1/document?revision={self.revision}&wait={wait}", wait=wait)
        except NoAnswer as error:
            return self._pause_without_answer(str(error))
        if answer.status == 200:
            return self._obey(answer)
        if answer.status == 204:
            self._reached()
            # A service that is stopping answers at once: no reason to ask it in a loop.
            return 0.0 if time.monotonic() - began >= min(wait, 1) else self._next_retry()
        return self._pause_after_answer(answer)

    def last_words(self) -> Tuple[str, ...]:
        """What is wrong now, for a person; empty when all is well."""
        service = () if self._status.service == "ok" else (f"the service: {self._status.service}",)
        return self._status.problems + service

    def _obey(self, answer: Answer) -> float:
        document, signed = answer.fields.get("document"), answer.fields.get("signature")
        if not isinstance(document, str) or not isinstance(signed, str):
            return self._pause_without_answer("it answered without a document")
        self._reached(reset=False)
        if self._refused == (document, signed):
            # Known and reported: look whether there is a better one, in a while.
            return self._next_retry()
        try:
            in_force = self._check(Accepted(document, signed))
            if in_force.document.revision <= self.revision:
                raise Refused(
                    f"its revision {in_force.document.revision} is not newer than {self.revision}, which is in force "
                    "here (a service restored from a backup must issue a newer one)"
                )
            self._accept(Accepted(document, signed))
        except Refused as refused:
            self._refused = (document, signed)
            self._tell(REFUSED, [f"the document is refused: {refused}"])
            return 0.0
        except Failed as failed:
            self._tell(FAILED, [str(failed)])
            return self._next_retry()
        self._refused = None
        self._retry = FIRST_RETRY
        self._in_force = in_force
        self._look(expected=True, problems=[])
        return 0.0

    def _check(self, accepted: Accepted) -> _InForce:
        """Invariant 6: checks (1) to (3); the caller makes (4)."""
        try:
            signature.check(self._memory.folder, accepted.document, accepted.signature)
        except signature.SignatureProblem as problem:
            raise (Refused if problem.final else Failed)(str(problem)) from None
        except OSError as error:
            raise Failed(f"the document's signature could not be checked: {error.strerror}") from None
        try:
            document = host_document.decode(accepted.document)
        except DocumentError as error:
            raise Refused(str(error)) from None
        if document.host != self._enrolment.host:
            raise Refused("it is for another host")
        return _InForce(document, render(document))

    def _accept(self, accepted: Accepted) -> None:
        """Remember first, then act: after a power cut in between, the newer document is put in place again."""
        try:
            self._memory.accept(accepted)
        except OSError as error:
            folder = self._memory.folder.path
            raise Failed(f"a new document is not obeyed yet: {folder} cannot be written: {error.strerror}") from None

    def _look(self, *, expected: bool, problems: List[str]) -> None:
        """Make the files as the document in force says, and tell what came of it.

        expected: that files differ is no surprise, because the document is new.
        """
        self._looked_at = time.monotonic()
        if self._in_force is None:
            if problems:
                self._tell(FAILED, problems)
            return
        document = self._in_force.document
        outcome = self._put(self._in_force.rendered)
        if outcome.problems:
            self._tell(FAILED, problems + list(outcome.problems))
            return
        put_back = [] if expected else [f"{path} was changed on this host; it is put back" for path in outcome.changed]
        unmet = _unmet(document)
        news = expected or put_back or self._status.problems != tuple(unmet)
        self._status = self._status._replace(revision=document.revision)
        if expected:
            self._status = self._status._replace(applied_at=time.time())
        if news:
            self._tell(APPLIED, problems + put_back + unmet, lasting=unmet)

    def _put(self, rendered: Rendered) -> Outcome:
        # Opened anew each time: somebody may have moved the folders away, and they are made again.
        try:
            files = KeyFiles.open(self._enrolment.keys_folder, self._enrolment.revoked_keys, create=True)
        except FolderProblem as problem:
            return Outcome((), (str(problem),))
        except OSError as error:
            return Outcome((), (f"{error.filename or self._enrolment.keys_folder}: {error.strerror}",))
        try:
            return files.put(rendered)
        finally:
            files.close()

    def _tell(self, state: str, problems: List[str], lasting: Optional[List[str]] = None) -> None:
        """Have the service told, as soon as it listens; say it here too. lasting: what to show as wrong still."""
        report = {
            "revision": self._status.revision,
            "state": state,
            "problems": problems,
            "agent_version": __version__,
        }
        still = tuple(problems if lasting is None else lasting)
        if state != APPLIED and still == self._status.problems and self._report is None:
            return  # told before, and nothing is new
        for problem in problems:
            self._say(problem)
        if state == APPLIED and not problems:
            self._say(f"revision {self._status.revision} is in force")
        self._report = report
        self._status = self._status._replace(problems=still)
        self._note()

    def _deliver_report(self) -> bool:
        """Tell what is to be told. Invariant 7: again and again until the service has it. False: it said no."""
        if self._report is None:
            return True
        answer = self._contact.post("/agent/v1/report", self._report)
        if answer.status >= 500:
            raise NoAnswer(f"it answered with status {answer.status}")
        if answer.status in (401, 403, 410):
            self._answered_no(answer)
            return False
        if answer.status != 200:
            # It will not like it better the next time; what is in force here does not depend on it.
            self._say(f"the service did not take the report: {answer.words}")
        self._report = None
        return True

    def _pause_after_answer(self, answer: Answer) -> float:
        if answer.status in (401, 403, 410):
            self._answered_no(answer)
            return self._pause_after_no()
        return self._pause_without_answer(f"it answered with status {answer.status}: {answer.words}")

    def _answered_no(self, answer: Answer) -> None:
        """A no is not a document: who may log in here changes by a signed one only."""
        self._contacted(f"it refuses this host: {answer.words}")

    def _pause_after_no(self) -> float:
        return _spread(REFUSED_RETRY)

    def _pause_without_answer(self, words: str) -> float:
        self._contact.close()
        if self._status.service != words:
            self._say(f"no answer from the service: {words}; what is in force here stays")
            self._status = self._status._replace(service=words)
            self._note()
        return self._next_retry()

    def _next_retry(self) -> float:
        pause = _spread(self._retry)
        self._retry = min(self._retry * 2, LAST_RETRY)
        return pause

    def _reached(self, *, reset: bool = True) -> None:
        if reset:
            self._retry = FIRST_RETRY
        self._contacted("ok")

    def _contacted(self, service: str) -> None:
        if service != self._status.service:
            self._say("the service answers" if service == "ok" else f"the service: {service}")
        changed = service != self._status.service
        self._status = self._status._replace(contact_at=time.time(), service=service)
        if changed or self._status.contact_at - self._noted.contact_at >= NOTE_SECONDS:
            self._note()

    def _note(self) -> None:
        """For `status`; that it cannot be written stops nothing."""
        try:
            self._memory.note(self._status)
            self._noted = self._status
        except OSError as error:
            self._say(f"{self._memory.folder.path} cannot be written: {error.strerror}")


def say(words: str) -> None:
    """One line for the log."""
    print(f"keyrack-agent: {words}", file=sys.stderr, flush=True)


def _spread(seconds: float) -> float:
    """Between half of the time and all of it, so that a thousand hosts do not come back at once."""
    return seconds * (0.5 + os.urandom(1)[0] / 510)


def _unmet(document: HostDocument) -> List[str]:
    """What a document asks for that this version leaves alone, so that nobody believes it done."""
    unmet = []
    if document.accounts:
        unmet.append("this agent does not create or remove accounts yet; do it by hand")
    if document.sshd:
        unmet.append("this agent does not change sshd's settings yet; do it by hand")
    if document.stale.after_seconds:
        unmet.append("this agent does not drop keys when the service is silent; temporary ones end all the same")
    return unmet
