"""The agent's main loop: waits for documents, has them applied, and reports; must obey only signed documents, and must
not take silence for an order.
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
QUIET_SECONDS = 1.0  # so long after the last document the slower work for it begins
CHECK_FILES_SECONDS = 30.0  # between two checks of the files on disk
TRY_AGAIN_SECONDS = 5.0  # the same while they could not be written
HURRY_SECONDS = 2.0  # the same while enforcing is on trial
FIRST_RETRY, LAST_RETRY = 0.2, 5.0  # seconds; short, so that a host obeys soon after the service is back
# The last while the service was heard of so lately that it is likely restarted or upgraded: who adds a key then waits.
RESTART_RETRY, RESTART_SECONDS = 1.5, 120.0
REFUSED_RETRY = 30.0  # after the service refused this host
COPIED_RETRY = 10.0  # while another machine uses the same secret
DELETED = (
    "this server was deleted in Keyrack: no key of Keyrack opens this host any more, and the service is not asked "
    "again; take the agent away with `keyrack-agent uninstall`, or enrol this host anew"
)
CLOCK_SECONDS = 60.0  # a smaller difference between this host's clock and the service's is not reported
NOTE_SECONDS = 60.0  # how old the time of the last contact in the status may get

_MAX_UNTOLD = 100  # sentences about files that were put back while the service was away
_PIECE = 100_000  # characters of a document in one request; a proxy may refuse a megabyte
_REFUSING = (401, 403, 410)  # statuses by which the service refuses this host
_LOST, _ANSWERED = "lost", "answered"  # a report got no answer; the service has answered another request since then
_DOCUMENT, _FILES = "document", "files"  # the kinds of trouble


class _Refusal(NamedTuple):
    """A document that was refused, and why: it is reported once, however often it comes again."""

    document: Accepted
    words: str


class Follower:
    """Follows the service for one enrolled host. Call start() once; step() does one exchange with the service."""

    def __init__(
        self,
        state: StateFolder,
        reconciler: Reconciler,
        client: ServiceClient,
        say: Callable[[str], None],
        in_force: Callable[[InForce], None] = lambda obeyed: None,
        witness: Optional[Witness] = None,
    ) -> None:
        """say: logs a line; in_force: called with what this host obeys, after each check of its files; witness: of the
        service's audit log.
        """
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
        self._unreported_words: List[str] = []  # sentences about what was put back, until the service has them
        self._report_at = 0.0
        self._refused_because = ""
        self._lost = ""
        self._refusal: Optional[_Refusal] = None
        self._troubles: Dict[str, Tuple[str, ...]] = {}
        self._retry = FIRST_RETRY
        self._heard_at = since_boot()  # when the service answered last, or this began
        self._clock_ahead = 0.0  # seconds; 0 where the clock is right enough
        self._reconciled_at = 0.0
        self._scan_soon = False
        self._is_over = False
        self._not_begun = ""
        # By since_boot(), which nobody can set and which goes on in sleep; the saved status is by other clocks.
        self._confirmed = since_boot() - silence(self._status)
        self._counted_from: Optional[float] = time.time() - since_boot()  # None once the service has confirmed
        self._set_back = ""
        if self._status.boot != boot_id():
            self._status = self._status._replace(confirmed_since_boot=0.0)  # it was of an earlier boot

    @property
    def wrong(self) -> Tuple[str, ...]:
        """What is wrong now, in words; empty when all is well."""
        service = () if self._status.service == "ok" else (f"the service: {self._status.service}",)
        return self._status.problems + service

    def start(self) -> None:
        """Put the last good document in place again, without waiting for the service."""
        self._reconciler.begin()
        self._reconcile(new=self._recall() and self._reconciler.revision != self._status.revision, tell=True)

    def run(self, *beside: Callable[[], None]) -> None:
        """Follow the service until the process ends. beside: functions that start the agent's other threads; one that
        raises OSError is tried again later, and documents are obeyed meanwhile.
        """
        waiting = beside
        while True:
            waiting = self._begin(waiting)
            time.sleep(self.step(int(TRY_AGAIN_SECONDS) if waiting else WAIT_SECONDS))

    def _begin(self, beside: Sequence[Callable[[], None]]) -> Tuple[Callable[[], None], ...]:
        """Call these functions. Answers those that failed."""
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
        """Check the files when it is time, send waiting reports, ask for a new document, and obey it. Answers how many
        seconds to pause. wait: seconds for which the service may hold the request.
        """
        pause = self._pause()
        if since_boot() - self._reconciled_at >= pause or self._reconciler.is_due(self._silent):
            self._reconcile(new=_FILES in self._troubles)
        if self._is_over:
            return self._pause()
        if self._witness is not None and self._witness.begin_anew():
            self._report_state(self._unmet())
        began = time.monotonic()
        try:
            # After a report without an answer, ask for a document first: a report must not hold up documents.
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
        document_lost = answer.status == 409 and answer.fields.get("tell") == "document"
        if self._lost and (answer.status in (200, 204) or document_lost):
            self._lost = _ANSWERED
        if answer.status == 200:
            return self._obey(answer)
        if answer.status in _REFUSING:
            self._answered_no(answer)
            return _spread(REFUSED_RETRY)
        if document_lost:
            return self._send_document(answer)
        if answer.status == 409:
            # Two machines use this host's secret: everything stays as it is until somebody decides.
            self._answered_no(answer)
            return _spread(COPIED_RETRY)
        if answer.status != 204:
            self._client.close()  # another process of the service may be able to
            return self._no_answer(_trouble(answer), is_there=True)
        self._confirm()
        self._answered("ok")
        if self._refusal is not None:
            self._refusal = None
            self._note()
        if time.monotonic() - began < min(wait, 1):
            # A service that is stopping answers at once: do not ask it in a tight loop.
            return self._next_retry()
        self._retry = FIRST_RETRY
        return 0.0

    def _obey(self, answer: ServiceAnswer) -> float:
        """Obey the document of an answer. One that is refused or fails is reported, and the last good state stays."""
        document, signature = answer.fields.get("document"), answer.fields.get("signature")
        if not isinstance(document, str) or not isinstance(signature, str):
            return self._no_answer("it answered without a document")
        self._answered("ok")
        if self._witness is not None and self._witness.take(answer.fields.get("checkpoint")):
            # The document counts all the same: who may log in does not depend on the audit log.
            self._report_state(self._unmet())
        new = Accepted(document, signature)
        if self._refusal is not None and self._refusal.document == new:
            # It was reported already. The service may send a better one later.
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
        # The key files at once; slower work waits until no other document has come for a moment.
        self._reconcile(new=True, scan=False)
        self._scan_soon = True
        return 0.0

    def _send_document(self, asked: ServiceAnswer) -> float:
        """Send the document in force to a service that has lost it; nothing changes here."""
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
        """Seconds since the service last confirmed the document in force, or sent a newer one."""
        return since_boot() - self._confirmed

    def _confirm(self) -> None:
        self._confirmed, self._counted_from = since_boot(), None
        self._status = self._status._replace(confirmed_at=time.time(), confirmed_since_boot=self._confirmed)

    def _pause(self) -> float:
        """Seconds between two checks of this host's files."""
        if self._scan_soon or self._reconciler.scanning:
            return QUIET_SECONDS
        if self._reconciler.on_trial:
            return HURRY_SECONDS
        return TRY_AGAIN_SECONDS if self._troubles else CHECK_FILES_SECONDS

    def _recall(self) -> bool:
        """Have the last document obeyed again. Answers False, after a report, where it cannot be."""
        try:
            self._reconciler.recall(self._status.revision)
        except (StateProblem, DocumentRefused, Failed) as problem:
            self._report_trouble(_DOCUMENT, [f"the last document cannot be used again: {problem}"])
            return False
        self._troubles.pop(_DOCUMENT, None)
        return True

    def _reconcile(self, *, new: bool, tell: bool = False, scan: bool = True) -> None:
        """Make the files what the document in force says, and report what changed.

        new: files are expected to differ; tell: report even if nothing changed; scan: also do the slower work.
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
        put_back = [words for words in (*put_back, *outcome.put_back) if words not in self._unreported_words]
        self._unreported_words = [*self._unreported_words, *put_back][-_MAX_UNTOLD:]
        self._status = self._status._replace(revision=self._reconciler.revision)
        if new:
            self._status = self._status._replace(applied_at=time.time())
        if new or tell or recovered or put_back or offline_now or self._reconciler.has_unreported:
            self._report_state(put_back + self._unmet())

    def _unmet(self) -> List[str]:
        """What is wrong beside the files, in words."""
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
        """Words where the service's silence was measured by a clock that was set back since; else empty. The silence is
        not shortened then: it is unknown which time was right, and a shorter one would bring dropped keys back.
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
        """Report a clock that is wrong by more than CLOCK_SECONDS, by the Date header of an answer, and one that is
        right again.
        """
        moment, before = moment_of(answer.date), self._clock_ahead
        if moment is None:
            return
        ahead = time.time() - moment
        if answer.status in (200, 204):
            self._reconciler.clock.note(moment)
        if abs(ahead) < (CLOCK_SECONDS / 2 if before else CLOCK_SECONDS):
            ahead = 0.0
        elif before and 0.5 < ahead / before < 2:
            return  # as was reported
        if ahead != before:
            self._clock_ahead = ahead
            if self._reconciler.revision and not self._troubles:
                self._report_state(self._unmet())

    def _report_trouble(self, kind: str, words: Sequence[str]) -> None:
        if self._troubles.get(kind) != tuple(words):
            self._troubles[kind] = tuple(words)
            self._report(FAILED, list(words))

    def _report_state(self, words: List[str]) -> None:
        """Report this host's state. A newer document that was refused or could not be saved is reported again with it:
        otherwise this report would replace the waiting one that says so.
        """
        if self._refusal is not None:
            self._report(REFUSED, [self._refusal.words, *words])
        elif _DOCUMENT in self._troubles:
            self._report(FAILED, [*self._troubles[_DOCUMENT], *words])
        else:
            self._report(APPLIED, words)

    def _report(self, state: str, words: List[str]) -> None:
        """Put a report into the outbox, and log its words."""
        for problem in words:
            self._say(problem)
        if state == APPLIED:
            self._say(f"revision {self._status.revision} is in force")
        is_recalled = self._reconciler.revision == self._status.revision
        # The report that this one replaces may have had these sentences, and was not sent.
        words = [*words, *(earlier for earlier in self._unreported_words if earlier not in words)]
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
        """How many seconds the service may hold the next request."""
        if self._status.service != "ok":
            return 0  # to know soon whether the service answers again
        if self._outbox.first is not None:
            wait = min(wait, max(0, math.ceil(self._report_at - time.monotonic())))
        return min(wait, int(self._pause()))

    def _deliver_report(self) -> bool:
        """Send waiting reports. Invariant 7: each is sent again until the service has it. Answers True where the
        service is not to be asked any more.
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
                # The service has forgotten this host, as its signed document said before.
                return self._end()
            if answer.status == 429:
                # Send the receipt at once, without the long list; the rest follows later.
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
        """The service's answer to a report; None where there is none or it refuses this host: ask for a document then.
        Raises NoAnswer.

        A proxy may block a report, or the service may fail at it. The next request for a document shows whether the
        service serves this host; if it does, the cause is the report.
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
        """Note that the service has all of the last report."""
        self._reconciler.delivered()
        self._unreported_words = []
        if self._refused_because:
            self._refused_because = ""
            self._note()

    def _note_refused(self, words: str) -> None:
        """Note that the service refused a report: it is split or dropped, and a bare receipt is tried again later."""
        if self._refused_because != words:
            self._refused_because = words
            self._say(f"the service did not take the report: {words}")
            self._note()
        if not self._outbox.refused():
            self._report_at = time.monotonic() + REFUSED_RETRY

    def _end(self) -> bool:
        """Stop asking the service: a signed document deleted this server, and the service knows that this host obeys.

        The files are still checked, so that no key of Keyrack's comes back on this host. Always True.
        """
        self._is_over = True
        self._outbox.clear()
        self._client.close()
        self._say(DELETED)
        self._status = self._status._replace(service=DELETED)
        self._note()
        return True

    def _answered_no(self, answer: ServiceAnswer) -> None:
        """Note that the service refuses this host. Only a signed document changes who may log in (Invariant 6)."""
        self._answered(f"it refuses this host: {answer.words}")

    def _no_answer(self, words: str, *, is_there: bool = False) -> float:
        """Note that the service did not answer; everything stays as it is. Answers how long to pause.

        is_there: the service says itself that it cannot serve, as without its database. It is asked no sooner, since
        thousands of hosts that do would keep it from others.
        """
        self._reconciler.note_contact(False)
        if self._status.service != words:
            self._say(f"no answer from the service: {words}; what is in force here stays")
            self._status = self._status._replace(service=words)
            self._note()
        restarts = not is_there and since_boot() - self._heard_at < RESTART_SECONDS
        return self._next_retry(RESTART_RETRY if restarts else LAST_RETRY)

    def _answered(self, service: str) -> None:
        self._reconciler.note_contact(True)
        self._heard_at = since_boot()
        changed = service != self._status.service
        if changed:
            self._say("the service answers" if service == "ok" else f"the service: {service}")
        self._status = self._status._replace(contact_at=time.time(), service=service)
        if changed or time.monotonic() - self._noted_at >= NOTE_SECONDS:
            self._note()

    def _next_retry(self, most: float = LAST_RETRY) -> float:
        pause = _spread(min(self._retry, most))
        self._retry = min(self._retry * 2, LAST_RETRY)
        return pause

    def _note(self) -> None:
        """Save the status, for `keyrack-agent status`; an error is only logged."""
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
    """Words for an answer with an error status."""
    if answer.status == 503:
        return f"Keyrack answers, but cannot serve (status 503): {answer.words}"
    return f"it answered with status {answer.status}: {answer.words}"


def say(words: str) -> None:
    """Write one line to the log (standard error)."""
    print(f"keyrack-agent: {printable(words)}", file=sys.stderr, flush=True)


def _spread(seconds: float) -> float:
    """A random time between half of these seconds and all, so that a thousand hosts do not come back at once."""
    return seconds * (0.5 + os.urandom(1)[0] / 510)


def _span(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} minutes" if minutes < 120 else f"{minutes // 60} hours"
