"""Decides how ends of keys are written for the running sshd: in UTC, in its local time, or not at all; must write none.

OpenSSH reads an end in UTC since 9.1, and one in local time since 7.7 (ssh/expiry_time.py). In both forms sshd itself
enforces the end, also when the agent and the service are dead (Invariant 5). Below 7.7 sshd knows no ends, and the
agent removes the line; while the agent does not run, the key still opens. Where the end is not in UTC, the agent
removes ended lines as well: a later change of the time zone must not bring them back. A line that the agent must remove
goes EARLY_SECONDS before its end: on a busy host the agent wakes and writes late, and a key must never last longer than
promised.
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

EARLY_SECONDS = 1  # so long before its end the agent removes a key whose end sshd cannot read
_SECONDS = 60.0  # for writing all ends in local time
_LARGEST = 16 * 1024 * 1024


class EndForm(Enum):
    """How an end is written."""

    UTC = "in UTC"
    LOCAL = "in local time"
    ABSENT = "not at all"


class Ends(NamedTuple):
    """How the ends of one document are written. local: pairs of an end (seconds since 1970) and its text in local time;
    keys whose end has no text there are left out of the files; ended: the ends that have passed, in seconds since 1970;
    problem: why an end could not be written, in words.
    """

    form: EndForm = EndForm.UTC
    local: Tuple[Tuple[int, Optional[str]], ...] = ()
    ended: FrozenSet[int] = frozenset()
    problem: str = ""

    @property
    def by_agent(self) -> bool:
        """Whether the agent must remove keys at their ends, as sshd cannot read ends."""
        return self.form is EndForm.ABSENT


IN_UTC = Ends()


class EndWriter:
    """Answers how ends are written, again and again; converts ends to local time only where that is not known yet."""

    def __init__(self, sshd: Sshd) -> None:
        self._sshd = sshd
        self._zone: Optional[TimeZone] = None
        self._written: Dict[int, Optional[str]] = {}
        self._document: Optional[HostDocument] = None
        self._moments: FrozenSet[int] = frozenset()

    def ends_of(self, document: HostDocument) -> Ends:
        """How the ends of this document are written for the sshd that runs now. Cheap where it has no ends."""
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
    """The form that the running sshd reads; UTC where its version is unknown, as no version reads that wrongly."""
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
    """When the agent must next remove an ended key, in seconds since 1970; infinite where it need not."""
    if ends.form is EndForm.UTC:
        return math.inf
    return min(moments_of(document) - ends.ended, default=math.inf) - (EARLY_SECONDS if ends.by_agent else 0)


def write(moments: List[int], zone: TimeZone) -> Dict[int, Optional[str]]:
    """These times (seconds since 1970), each with its text in the local time of a zone; None where it cannot be
    written. Raises AccountProblem.

    A child process does it: a time zone belongs to a whole process, and this one's other threads use it.
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
    """Set this process's time zone; only in a child process that does nothing else."""
    os.environ["TZ"] = tz
    time.tzset()
