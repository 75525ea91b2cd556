"""Applies the newest document at boot, before sshd starts and within a time limit; must never keep sshd from starting.

systemd runs this before it starts sshd. First the last document is put in place as it counts now (ends may have come,
the offline policy may apply). Then the service is asked until it answers or the time is over. sshd must start in either
case, as an administrator may have no other way in. Only key files are written; the agent does the rest later.
"""

from __future__ import annotations

import contextlib
import signal
import time
from typing import Callable, Iterable

from keyrack.agent.desired_state import silence
from keyrack.agent.reconcile import DocumentRefused, Failed, Reconciler
from keyrack.agent.service.client import NoAnswer, ServiceClient, moment_of
from keyrack.agent.state import Accepted, StateFolder, StateProblem
from keyrack.agent.system.processes import since_boot

SPARE_SECONDS = 5.0  # so long after its time limit the process is killed, whatever it waits for
_PAUSE_SECONDS = 0.25
_AWAY = 500  # statuses from this one on count as no answer


def catch_up(
    state: StateFolder, reconciler: Reconciler, client: ServiceClient, say: Callable[[str], None], seconds: float
) -> bool:
    """Make the key files what the service wants now. Answers whether the service said what that is and all files were
    written. seconds: the time limit.

    Where something hangs, such as a name server, the process is killed soon after; files are old or new then, never
    partial.
    """
    signal.setitimer(signal.ITIMER_REAL, seconds + SPARE_SECONDS)
    until = time.monotonic() + seconds
    status = state.status()
    reconciler.clock.recall(status)
    try:
        reconciler.recall(status.revision)
    except (StateProblem, DocumentRefused, Failed) as problem:
        say(f"the last document cannot be used again: {problem}")
    _say_all(say, reconciler.put(silent=silence(status), scan=False).problems)
    words = ""
    while True:
        try:
            mark = f"&lineage={reconciler.lineage}" if reconciler.lineage else ""
            answer = client.get(f"/agent/v1/document?revision={reconciler.revision}{mark}&wait=0")
            words = answer.words
            if answer.status < _AWAY:
                moment = moment_of(answer.date)
                if moment is not None and answer.status in (200, 204):
                    reconciler.clock.note(moment)
                break
        except NoAnswer as error:
            words = str(error)
        if time.monotonic() + _PAUSE_SECONDS >= until:
            say(f"sshd starts with what was in force: no answer from the service within {seconds:g} seconds ({words})")
            return False
        time.sleep(_PAUSE_SECONDS)
    document, signature = answer.fields.get("document"), answer.fields.get("signature")
    if answer.status == 200 and isinstance(document, str) and isinstance(signature, str):
        try:
            reconciler.take(Accepted(document, signature), status.revision)
        except (DocumentRefused, Failed) as problem:
            say(f"sshd starts with what was in force: {problem}")
            return False
    elif answer.status != 204:
        say(f"sshd starts with what was in force: the service says: {words}")
        return False
    # The service has confirmed the document in force, or sent a newer one.
    problems = reconciler.put(scan=False).problems
    _say_all(say, problems)
    now = time.time()
    with contextlib.suppress(OSError):
        confirmed = status._replace(contact_at=now, confirmed_at=now, service="ok", confirmed_since_boot=since_boot())
        state.note(reconciler.clock.noted(confirmed))
    return not problems


def _say_all(say: Callable[[str], None], problems: Iterable[str]) -> None:
    for problem in problems:
        say(problem)
