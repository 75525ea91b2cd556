"""Decides how ends of keys are written for the running sshd: in UTC, in its local time, or not at all; must write none.

OpenSSH reads an end in UTC since 9.1 and one in local time since 7.7 (ssh/expiry_time.py). In both forms sshd itself
sees to the end, whatever is dead by then (Invariant 5). Below 7.7 it knows no ends, and the agent takes the line away;
while the agent does not run, nobody does. Ended lines are taken out wherever the end is not in UTC: a zone that
changes later must not bring them back. What the agent takes away itself goes EARLY_SECONDS before its end: it wakes and
writes a moment late on a busy host, and less than promised is never too much.
"""

from __future__ import annotations

import json
import math
import os
import time
from enum import Enum
from typing import Dict, FrozenSet, List, NamedTuple, Optional, Tuple

from keyrack.agent.sshd.running import UNKNOWN, TimeZone
from keyrack.agent.sshd.settings import Sshd
from keyrack.agent.system import as_account
from keyrack.protocol.host_document import HostDocument
from keyrack.protocol.words import count
from keyrack.ssh import authorized_keys, expiry_time

EARLY_SECONDS = 1  # before an end that the agent sees to
_SECONDS = 60.0  # that writing ends in local time may take
_LARGEST = 16 * 1024 * 1024


class EndForm(Enum):
    """How an end is written."""

    UTC = "in UTC"
    LOCAL = "in local time"
    ABSENT = "not at all"


class Ends(NamedTuple):
    """How the ends of one document are written. local: seconds since 1970 to what is written, where it is local time;
    a moment that is not there cannot be written, and its keys stay out; ended: those that have passed.
    """

    form: EndForm = EndForm.UTC
    local: Tuple[Tuple[int, Optional[str]], ...] = ()
    ended: FrozenSet[int] = frozenset()
    problem: str = ""

    @property
    def by_agent(self) -> bool:
        """Whether the agent alone sees to the ends."""
        return self.form is EndForm.ABSENT


IN_UTC = Ends()


class EndWriter:
    """Answers how ends are written again and again; asks sshd's processes and the zone only where that may differ."""

    def __init__(self, sshd: Sshd) -> None:
        self._sshd = sshd
        self._zone: Optional[TimeZone] = None
        self._written: Dict[int, Optional[str]] = {}
        self._document: Optional[HostDocument] = None
        self._moments: FrozenSet[int] = frozenset()

    def ends_of(self, document: HostDocument) -> Ends:
        """How the ends of this document are written for the sshd that runs now. Cheap where there are none."""
        if document is not self._document:
            self._document, self._moments = document, moments_of(document)
        moments = self._moments
        if not moments:
            return IN_UTC
        form = form_of(self._sshd)
        if form is EndForm.UTC:
            return IN_UTC
        now = time.time()
        if form is EndForm.ABSENT:
            return Ends(form, ended=frozenset(moment for moment in moments if moment - EARLY_SECONDS <= now))
        ended = frozenset(moment for moment in moments if moment <= now)
        zone = self._sshd.running.zone()
        if zone != self._zone:
            self._zone, self._written = zone, {}
        missing = sorted(moments - ended - set(self._written))
        problem = ""
        if missing:
            try:
                self._written.update(write(missing, zone))
            except as_account.AccountProblem as trouble:
                problem = f"ends of keys could not be written in sshd's local time ({zone.name}): {trouble}"
        self._written = {moment: text for moment, text in self._written.items() if moment in moments}
        unwritten = [moment for moment, text in self._written.items() if text is None and moment not in ended]
        if unwritten and not problem:
            problem = f"{count(len(unwritten), 'end')} of keys cannot be written in sshd's local time ({zone.name})"
        return Ends(form, tuple(sorted(self._written.items())), ended, problem)


def form_of(sshd: Sshd) -> EndForm:
    """What the running sshd reads. One whose version nobody knows is given UTC, which none reads wrongly."""
    version = sshd.running.version()
    if version == UNKNOWN or version >= expiry_time.FIRST_IN_UTC:
        return EndForm.UTC
    return EndForm.LOCAL if version >= expiry_time.FIRST else EndForm.ABSENT


def moments_of(document: HostDocument) -> FrozenSet[int]:
    """Every end in a document, in seconds since 1970."""
    return frozenset(
        authorized_keys.end_of(key.expires_at)
        for keys in document.users.values()
        for key in keys
        if key.expires_at is not None
    )


def next_end(document: HostDocument, ends: Ends) -> float:
    """Seconds since 1970 when the agent must see to the next end; infinite where there is none."""
    if ends.form is EndForm.UTC:
        return math.inf
    return min(moments_of(document) - ends.ended, default=math.inf) - (EARLY_SECONDS if ends.by_agent else 0)


def write(moments: List[int], zone: TimeZone) -> Dict[int, Optional[str]]:
    """These moments in the local time of a zone. Raises AccountProblem.

    In a process of its own, as the zone is the process's: ours is not sshd's, and other threads read it.
    """
    child = as_account.Child(os.geteuid(), lambda writing: _write(moments, zone.tz, writing))
    answer = b""
    deadline = time.monotonic() + _SECONDS
    try:
        while len(answer) <= _LARGEST:
            piece = child.read(deadline)
            if piece is None:
                raise as_account.NoEnd(f"no end within {_SECONDS:g} seconds")
            if not piece:
                break
            answer += piece
    finally:
        child.end()
    try:
        texts = json.loads(answer)
    except ValueError:
        raise as_account.AccountProblem("the process that did it ended early") from None
    return dict(zip(moments, texts))  # noqa: B905 - not in Python 3.9


def _write(moments: List[int], tz: str, writing: int) -> None:
    """In the child."""
    use_zone(tz)
    texts = [expiry_time.in_local_time(moment) for moment in moments]
    as_account.write_all(writing, json.dumps(texts).encode("ascii"))


def use_zone(tz: str) -> None:
    """Make this process's zone another one; only for a process that does nothing else."""
    os.environ["TZ"] = tz
    time.tzset()
