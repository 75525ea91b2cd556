"""The agent's main loop: waits for documents, has them applied and reports; must take no answer but a signed document
for an order, and silence for none.
"""

from __future__ import annotations

import math
import os
import sys
import time
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from keyrack import __version__
from keyrack.agent.desired_state import silence
from keyrack.agent.reconcile import DocumentRefused, Failed, InForce, Reconciler
from keyrack.agent.service.client import NoAnswer, ServiceAnswer, ServiceClient, moment_of
from keyrack.agent.service.outbox import Outbox
from keyrack.agent.service.witness import Witness
from keyrack.agent.state import Accepted, StateFolder, StateProblem
from keyrack.agent.system.processes import boot_id, since_boot
from keyrack.protocol.report import APPLIED, FAILED, REFUSED
from keyrack.ssh.printable import printable

WAIT_SECONDS = 25
QUIET_SECONDS = 1.0  # without another document, until what takes longer is done for the last one
CHECK_FILES_SECONDS = 30.0  # between two looks at the files on disk
TRY_AGAIN_SECONDS = 5.0  # the same while they could not be made as they must be
HURRY_SECONDS = 2.0  # the same while enforcing is on trial
FIRST_RETRY, LAST_RETRY = 0.2, 5.0  # seconds; short, so that a host obeys soon after the service is back
REFUSED_RETRY = 30.0  # after a clear no
COPIED_RETRY = 10.0  # while another machine goes by the same secret
DELETED = (
    "this server was deleted in Keyrack: no key of Keyrack opens this host any more, and the service is not asked "
    "again; take the agent away with `keyrack-agent uninstall`, or enrol this host anew"
)
CLOCK_SECONDS = 60.0  # by how much this host's clock may differ from the service's without a word
NOTE_SECONDS = 60.0  # how old the time of the last contact in the status may get

_MOST_UNTOLD = 100  # of what was put back while the service was away
_PIECE = 100_000  # characters of a document in one request; a proxy may refuse a megabyte
_REFUSING = (401, 403, 410)  # statuses by which the service does not serve this host
_LOST, _ANSWERED = "lost", "answered"  # a report that got no answer; and the service answered a question since then
_DOCUMENT, _FILES = "document", "files"  # what trouble is about


class _Refusal(NamedTuple):
    """A document that was refused, and why: so that it is told once, however often it comes again."""

    document: Accepted
    words: str


class Follower:
    """One enrolled host. Call start() once; `step` does one exchange and answers how long to pause after it."""

    def __init__(
        self,
        state: StateFolder,
        reconciler: Reconciler,
        client: ServiceClient,
        say: Callable[[str], None],
        in_force: Callable[[InForce], None] = lambda obeyed: None,
        witness: Optional[Witness] = None,
    ) -> None:
        """in_force: told what this host obeys, after each look at its files; witness: of the service's audit log."""
        self._witness = witness
        self._state_folder = state
        self._reconciler = reconciler
        self._client = client
        self._say = say
        self._in_force = in_force
        self._status = state.status()
        reconciler.clock.recall(self._status)
        self._noted_at = 0.0
        self._outbox = Outbox()
        self._untold: List[str] = []  # what was put back, until the service has it
        self._report_at = 0.0
        self._refused_because = ""
        self._lost = ""
        self._refusal: Optional[_Refusal] = None
        self._troubles: Dict[str, Tuple[str, ...]] = {}
        self._retry = FIRST_RETRY
        self._clock_ahead = 0.0  # seconds; 0: it is right enough
        self._reconciled_at = 0.0
        self._scan_soon = False
        self._is_over = False
        self._not_begun = ""
        # By a clock that nobody sets and that goes on in sleep, from what was noted by one that somebody may have set.
        self._confirmed = since_boot() - silence(self._status)
        self._counted_from: Optional[float] = time.time() - since_boot()  # None: nothing of that silence counts now
        self._set_back = ""
        if self._status.boot != boot_id():
            self._status = self._status._replace(confirmed_since_boot=0.0)  # of a boot that is over

    @property
    def wrong(self) -> Tuple[str, ...]:
        """What is wrong now, for a person; empty when all is well."""
        service = () if self._status.service == "ok" else (f"the service: {self._status.service}",)
        return self._status.problems + service

    def start(self) -> None:
        """Put the last good document in place again, without waiting for the service."""
        self._reconciler.begin()
        self._reconcile(new=self._recall() and self._reconciler.revision != self._status.revision, tell=True)

    def run(self, *beside: Callable[[], None]) -> None:
        """Follow for good. beside: begin what goes on beside it; each raises OSError where that cannot be, and is tried
        again, as documents must come into force all the same.
        """
        waiting = beside
        while True:
            waiting = self._begin(waiting)
            time.sleep(self.step(int(TRY_AGAIN_SECONDS) if waiting else WAIT_SECONDS))

    def _begin(self, beside: Sequence[Callable[[], None]]) -> Tuple[Callable[[], None], ...]:
        """Answers what could not be begun."""
        left = []
        words = ""
        for begin in beside:
            try:
                begin()
            except OSError as problem:
                left.append(begin)
                words = str(problem.strerror)
        if words != self._not_begun:
            self._not_begun = words
            self._say(words or "what could not be begun goes on now")
        return tuple(left)

    def step(self, wait: int) -> float:
        """Look at the files when it is time, tell what is to be told, ask for news and obey it."""
        pause = self._pause()
        if since_boot() - self._reconciled_at >= pause or self._reconciler.is_due(self._silent):
            self._reconcile(new=_FILES in self._troubles)
        if self._is_over:
            return self._pause()
        began = time.monotonic()
        try:
            # After a report that got no answer a question comes first: no document waits for what cannot be told.
            if self._lost != _LOST and self._deliver_report():
                return self._pause()
            wait = self._wait_seconds(wait)
            mark = f"&lineage={self._reconciler.lineage}" if self._reconciler.lineage else ""
            seen = "" if self._witness is None else f"&audit={self._witness.size}"
            path = f"/agent/v1/document?revision={self._reconciler.revision}{mark}{seen}&wait={wait}"
            answer = self._client.get(path, wait=wait)
        except NoAnswer as error:
            return self._no_answer(str(error))
        self._compare_clocks(answer)
        astray = answer.status == 409 and answer.fields.get("tell") == "document"
        if self._lost and (answer.status in (200, 204) or astray):
            self._lost = _ANSWERED
        if answer.status == 200:
            return self._obey(answer)
        if answer.status in _REFUSING:
            self._answered_no(answer)
            return _spread(REFUSED_RETRY)
        if astray:
            return self._send_document(answer)
        if answer.status == 409:
            # Two machines go by this host's secret: everything stays as it is until somebody decides.
            self._answered_no(answer)
            return _spread(COPIED_RETRY)
        if answer.status != 204:
            return self._no_answer(_trouble(answer))
        self._confirm()
        self._answered("ok")
        if self._refusal is not None:
            self._refusal = None
            self._note()
        if time.monotonic() - began < min(wait, 1):
            # A service that is stopping answers at once: no reason to ask it in a loop.
            return self._next_retry()
        self._retry = FIRST_RETRY
        return 0.0

    def _obey(self, answer: ServiceAnswer) -> float:
        """Take the document of an answer; what is refused or fails is told, and the last good state stays."""
        document, signature = answer.fields.get("document"), answer.fields.get("signature")
        if not isinstance(document, str) or not isinstance(signature, str):
            return self._no_answer("it answered without a document")
        self._answered("ok")
        if self._witness is not None and self._witness.take(answer.fields.get("checkpoint")):
            # The document counts all the same: who may log in does not hang on the log.
            self._report_state(self._unmet())
        new = Accepted(document, signature)
        if self._refusal is not None and self._refusal.document == new:
            # Told already. Perhaps there is a better one in a while.
            return self._next_retry()
        try:
            self._reconciler.take(new, self._status.revision)
        except DocumentRefused as refused:
            self._refusal = _Refusal(new, f"a document is refused: {refused}")
            self._report(REFUSED, [self._refusal.words])
            return 0.0
        except Failed as failed:
            self._report_trouble(_DOCUMENT, [str(failed)])
            return self._next_retry()
        self._refusal = None
        self._troubles.pop(_DOCUMENT, None)
        self._retry = FIRST_RETRY
        self._confirm()
        # At once; what takes longer waits until no other document came for a moment.
        self._reconcile(new=True, scan=False)
        self._scan_soon = True
        return 0.0

    def _send_document(self, asked: ServiceAnswer) -> float:
        """Hand over what is obeyed here, to a service that does not know it any more; nothing changes meanwhile."""
        self._answered(f"it has lost what this host obeys: {asked.words}")
        try:
            last = self._state_folder.accepted()
            if last is None:
                return self._next_retry()
            pieces = [last.document[at : at + _PIECE] for at in range(0, len(last.document), _PIECE)]
            for number, text in enumerate(pieces):
                fields = {"number": number, "of": len(pieces), "text": text, "signature": last.signature}
                answer = self._client.post("/agent/v1/last-document", fields)
                if answer.status != 200:
                    return self._no_answer(f"it did not take this host's last document: {answer.words}")
        except StateProblem as problem:
            self._report_trouble(_DOCUMENT, [f"the last document cannot be told: {problem}"])
            return self._next_retry()
        except NoAnswer as error:
            return self._no_answer(str(error))
        return 0.0

    @property
    def _silent(self) -> float:
        """Seconds since the service last confirmed what is in force here, or gave something newer."""
        return since_boot() - self._confirmed

    def _confirm(self) -> None:
        self._confirmed, self._counted_from = since_boot(), None
        self._status = self._status._replace(confirmed_at=time.time(), confirmed_since_boot=self._confirmed)

    def _pause(self) -> float:
        """Seconds between two looks at this host."""
        if self._scan_soon or self._reconciler.scanning:
            return QUIET_SECONDS
        if self._reconciler.hurry:
            return HURRY_SECONDS
        return TRY_AGAIN_SECONDS if self._troubles else CHECK_FILES_SECONDS

    def _recall(self) -> bool:
        """Have the last document obeyed again; False, with the trouble told, where that cannot be."""
        try:
            self._reconciler.recall(self._status.revision)
        except (StateProblem, DocumentRefused, Failed) as problem:
            self._report_trouble(_DOCUMENT, [f"the last document cannot be used again: {problem}"])
            return False
        self._troubles.pop(_DOCUMENT, None)
        return True

    def _reconcile(self, *, new: bool, tell: bool = False, scan: bool = True) -> None:
        """Make the files as the document in force says, and tell what came of it.

        new: that files differ is no surprise. tell: even when nothing changed; scan: also what takes longer.
        """
        self._reconciled_at = since_boot()
        if scan:
            self._scan_soon = False
        if not self._reconciler.revision and not self._recall():
            return
        unmet = self._reconciler.unmet()
        outcome = self._reconciler.put(new=new, silent=self._silent, scan=scan)
        if self._reconciler.in_force is not None:
            self._in_force(self._reconciler.in_force)
        if outcome.problems:
            self._report_trouble(_FILES, outcome.problems)
            return
        recovered = self._troubles.pop(_FILES, None) is not None
        if not self._reconciler.revision:
            return
        set_back, self._set_back = self._set_back, self._set_back_words()
        offline_now = unmet != self._reconciler.unmet() or set_back != self._set_back
        surprise = not new and not offline_now
        put_back = [f"{path} was changed on this host; it is put back" for path in outcome.changed if surprise]
        put_back = [words for words in (*put_back, *outcome.put_back) if words not in self._untold]
        self._untold = [*self._untold, *put_back][-_MOST_UNTOLD:]
        self._status = self._status._replace(revision=self._reconciler.revision)
        if new:
            self._status = self._status._replace(applied_at=time.time())
        if new or tell or recovered or put_back or offline_now or self._reconciler.news:
            self._report_state(put_back + self._unmet())

    def _unmet(self) -> List[str]:
        """What is not as it should be though the files are, in words."""
        rewritten = [] if self._witness is None or not self._witness.problem else [self._witness.problem]
        rewritten += [self._set_back] if self._set_back else []
        if not self._clock_ahead:
            return [*self._reconciler.unmet(), *rewritten]
        span = _span(abs(self._clock_ahead))
        way = "ahead of" if self._clock_ahead > 0 else "behind"
        ends = "keys end by it" if self._clock_ahead > 0 else "keys end by the service's all the same"
        words = f"this host's clock is about {span} {way} the service's, and {ends}: set it right"
        return [*self._reconciler.unmet(), *rewritten, f"{words} (timedatectl set-ntp true)"]

    def _set_back_words(self) -> str:
        """Where the service's silence was counted by a clock that was set back since: it stays as long as it was, as
        nobody here knows which of the two was right, and an earlier one would bring dropped keys back.
        """
        if self._counted_from is None or not self._reconciler.is_offline:
            return ""
        seconds = self._counted_from - (time.time() - since_boot())
        if seconds < CLOCK_SECONDS:
            return ""
        return (
            f"this host's clock was set back by about {_span(seconds)} since the agent began and counted the service's "
            "silence by it: what that dropped comes back with the service's next answer alone"
        )

    def _compare_clocks(self, answer: ServiceAnswer) -> None:
        """Have a clock told that goes wrong by much, by the Date header of an answer, and one that is right again."""
        moment, before = moment_of(answer.date), self._clock_ahead
        if moment is None:
            return
        ahead = time.time() - moment
        if answer.status in (200, 204):
            self._reconciler.clock.note(moment)
        if abs(ahead) < (CLOCK_SECONDS / 2 if before else CLOCK_SECONDS):
            ahead = 0.0
        elif before and 0.5 < ahead / before < 2:
            return  # as was told
        if ahead != before:
            self._clock_ahead = ahead
            if self._reconciler.revision and not self._troubles:
                self._report_state(self._unmet())

    def _report_trouble(self, kind: str, words: Sequence[str]) -> None:
        if self._troubles.get(kind) != tuple(words):
            self._troubles[kind] = tuple(words)
            self._report(FAILED, list(words))

    def _report_state(self, words: List[str]) -> None:
        """Tell how things are: a newer document that is refused, or cannot be kept, goes on being told. Else a report
        that all is well would take the place of the one that says so, before anybody heard it.
        """
        if self._refusal is not None:
            self._report(REFUSED, [self._refusal.words, *words])
        elif _DOCUMENT in self._troubles:
            self._report(FAILED, [*self._troubles[_DOCUMENT], *words])
        else:
            self._report(APPLIED, words)

    def _report(self, state: str, words: List[str]) -> None:
        """Have the service told as soon as it listens; say it here too."""
        for problem in words:
            self._say(problem)
        if state == APPLIED:
            self._say(f"revision {self._status.revision} is in force")
        is_recalled = self._reconciler.revision == self._status.revision
        # The report that this one takes the place of may have had them, and nobody has heard it.
        words = [*words, *(earlier for earlier in self._untold if earlier not in words)]
        report = self._reconciler.to_report()._replace(
            revision=self._status.revision,
            lineage=self._reconciler.lineage if is_recalled else None,
            state=state,
            problems=words,
            agent_version=__version__,
        )
        self._outbox.put(report.to_json())
        self._report_at = 0.0
        self._note()

    def _wait_seconds(self, wait: int) -> int:
        """How long the service may keep a question now."""
        if self._status.service != "ok":
            return 0  # until it is known that all is well again
        if self._outbox.first is not None:
            wait = min(wait, max(0, math.ceil(self._report_at - time.monotonic())))
        return min(wait, int(self._pause()))

    def _deliver_report(self) -> bool:
        """Tell what is to be told. Invariant 7: again and again until the service has it. Whether nothing more is to be
        asked.
        """
        while self._outbox.first is not None and time.monotonic() >= self._report_at:
            report = self._outbox.first
            obeyed = (
                self._reconciler.deleted
                and report.get("state") == APPLIED
                and report["revision"] == self._reconciler.revision
            )
            answer = self._post(report)
            if answer is None:
                return False
            if answer.status in _REFUSING:
                # It knows nothing of this host any more, and has said so before, signed.
                return self._end()
            if answer.status == 429:
                # A receipt need not wait for a list that is too long for now; nothing is left out.
                if not self._outbox.receipt_first():
                    self._report_at = time.monotonic() + (answer.retry_after or REFUSED_RETRY)
            elif answer.status == 200:
                if self._outbox.accepted():
                    self._note_accepted()
                if obeyed:
                    return self._end()
            else:
                self._note_refused(answer.words)
        return False

    def _post(self, report: Mapping[str, Any]) -> Optional[ServiceAnswer]:
        """The service's answer to a report; None: go on to ask, as there is none, or a no. Raises NoAnswer.

        A report may be what a proxy does not let through, or what the service fails at. So the next question shows
        whether this host is served; if it is, it lies in the report.
        """
        try:
            answer = self._client.post("/agent/v1/report", report)
            if answer.status < 500 and (answer.status not in (*_REFUSING, 409) or self._reconciler.deleted):
                self._lost = ""
                return answer
            words = _trouble(answer)
        except NoAnswer as error:
            answer, words = None, str(error)
        served, self._lost = self._lost == _ANSWERED, _LOST
        if served:
            self._report_at = time.monotonic() + TRY_AGAIN_SECONDS
            self._note_refused(words)
        elif answer is None or answer.status not in (*_REFUSING, 409):
            raise NoAnswer(words)
        return None

    def _note_accepted(self) -> None:
        """All of the last report is told."""
        self._reconciler.delivered()
        self._untold = []
        if self._refused_because:
            self._refused_because = ""
            self._note()

    def _note_refused(self, words: str) -> None:
        """A report was not taken: in a smaller form it may be, and a receipt must be; nothing waits for it here."""
        if self._refused_because != words:
            self._refused_because = words
            self._say(f"the service did not take the report: {words}")
            self._note()
        if not self._outbox.refused():
            self._report_at = time.monotonic() + REFUSED_RETRY

    def _end(self) -> bool:
        """Its server was deleted, by a signed document, and the service knows that this host obeys: ask no more.

        The files are looked after all the same, so that nothing of Keyrack's comes back on this host.
        """
        self._is_over = True
        self._outbox.clear()
        self._client.close()
        self._say(DELETED)
        self._status = self._status._replace(service=DELETED)
        self._note()
        return True

    def _answered_no(self, answer: ServiceAnswer) -> None:
        """A no is not a document: who may log in here changes by a signed one only (Invariant 6)."""
        self._answered(f"it refuses this host: {answer.words}")

    def _no_answer(self, words: str) -> float:
        """Nothing was said, neither yes nor no: everything stays as it is."""
        self._client.close()
        self._reconciler.note_contact(False)
        if self._status.service != words:
            self._say(f"no answer from the service: {words}; what is in force here stays")
            self._status = self._status._replace(service=words)
            self._note()
        return self._next_retry()

    def _answered(self, service: str) -> None:
        self._reconciler.note_contact(True)
        changed = service != self._status.service
        if changed:
            self._say("the service answers" if service == "ok" else f"the service: {service}")
        self._status = self._status._replace(contact_at=time.time(), service=service)
        if changed or time.monotonic() - self._noted_at >= NOTE_SECONDS:
            self._note()

    def _next_retry(self) -> float:
        pause = _spread(self._retry)
        self._retry = min(self._retry * 2, LAST_RETRY)
        return pause

    def _note(self) -> None:
        """For `status`; that it cannot be written stops nothing."""
        problems = [self._refusal.words] if self._refusal else []
        problems += [f"the service did not take the report: {self._refused_because}"] if self._refused_because else []
        for words in self._troubles.values():
            problems += words
        self._status = self._reconciler.clock.noted(self._status)._replace(
            problems=(*problems, *self._unmet()), ends_earlier=self._reconciler.ends_earlier
        )
        self._noted_at = time.monotonic()
        try:
            self._state_folder.note(self._status)
        except OSError as error:
            self._say(f"{self._state_folder.folder.path} cannot be written: {error.strerror}")


def _trouble(answer: ServiceAnswer) -> str:
    """The service's own words that it cannot serve now."""
    if answer.status == 503:
        return f"Keyrack answers, but cannot serve (status 503): {answer.words}"
    return f"it answered with status {answer.status}: {answer.words}"


def say(words: str) -> None:
    """One line for the log."""
    print(f"keyrack-agent: {printable(words)}", file=sys.stderr, flush=True)


def _spread(seconds: float) -> float:
    """Between half of the time and all of it, so that a thousand hosts do not come back at once."""
    return seconds * (0.5 + os.urandom(1)[0] / 510)


def _span(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} minutes" if minutes < 120 else f"{minutes // 60} hours"
