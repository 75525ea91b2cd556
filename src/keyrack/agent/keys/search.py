"""Has the look for keys done beside the agent's main work, which it must never keep waiting, and what needs one done.

A look takes a few milliseconds where nothing changed, and then its result is there at once. After a change of the
accounts or of sshd's settings it can take seconds, as sshd is asked about each account, and as long as it likes where
a file system does not answer; then it goes on by itself, and documents are obeyed meanwhile. Keys are taken out of
files here too: whose files they are, in whose hands is how long that takes.

There is no lock, because nothing is shared: at most one look goes on at a time, the scanner is its alone, and its
result is taken only when its thread has ended. That thread forks (as_account), as the main one does; what the
child does until it ends is plain system calls, and a child that waits for more is killed.
"""

from __future__ import annotations

import threading
from typing import List, NamedTuple, Optional, Sequence, Tuple

from keyrack.agent.keys.remove_keys import remove_keys
from keyrack.agent.keys.unmanaged_keys import Scanner
from keyrack.agent.system import threads
from keyrack.protocol.host_document import KeyRemoval
from keyrack.protocol.report import Cut, ReportedKey

PATIENCE_SECONDS = 0.05  # what the main work waits for a look


class Wanted(NamedTuple):
    """What a look is asked for. before, names: see Scanner.scan; removals: what to take away of what is found."""

    before: Tuple[str, ...] = ()
    names: Tuple[str, ...] = ()
    removals: Tuple[KeyRemoval, ...] = ()


class SearchResult(NamedTuple):
    """What a look found, after what it took away; problems: what could not be, in words."""

    found: List[ReportedKey]
    cut: Tuple[Cut, ...]
    unlisted: str
    problems: List[str]


class _SearchRun(threading.Thread):
    """One look. What it found, or why it found nothing, counts once the thread has ended."""

    def __init__(self, scanner: Scanner, wanted: Wanted) -> None:
        super().__init__(name="search", daemon=True)
        self._scanner = scanner
        self.wanted = wanted
        self.looked: Optional[SearchResult] = None
        self.problem: Optional[Exception] = None

    def run(self) -> None:
        """Look."""
        try:
            self.looked = look(self._scanner, self.wanted)
        except Exception as problem:  # the main work judges it
            self.problem = problem


def look(scanner: Scanner, wanted: Wanted) -> SearchResult:
    """Look now, and take away what is ordered. Raises SshdProblem or OSError, as scan does."""
    found = scanner.scan(wanted.before, wanted.names)
    named = {(order.path, order.fingerprint) for order in wanted.removals}
    problems: List[str] = []
    if any((one.path, one.fingerprint) in named for one in found):
        problems = remove_keys(wanted.removals, found, scanner.rules)
        found = scanner.scan(wanted.before, wanted.names)
    return SearchResult(found, scanner.cut, scanner.problem, problems)


class KeySearch:
    """All looks of one host, asked for by one thread."""

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        self._look: Optional[_SearchRun] = None
        self._patience: Optional[float] = None

    def hurry(self) -> None:
        """From now on look() waits for at most PATIENCE_SECONDS; without this, until all is found."""
        self._patience = PATIENCE_SECONDS

    @property
    def goes_on(self) -> bool:
        """Whether a look was begun whose result nobody took yet."""
        return self._look is not None

    def look(
        self, before: Sequence[str], names: Sequence[str] = (), removals: Sequence[KeyRemoval] = ()
    ) -> Optional[SearchResult]:
        """What the look that goes on found, or a new one; None: it takes longer, ask again. See Wanted.

        Where other things are ordered than were when it began, another one begins after it. Raises SshdProblem or
        OSError, as scan does.
        """
        wanted = Wanted(tuple(before), tuple(sorted(names)), tuple(removals))
        if self._look is None:
            self._begin(wanted)
        looked = self._take()
        if looked is not None and looked[0] != wanted and wanted.removals:
            self._begin(wanted)
            looked = self._take() or looked
        return None if looked is None else looked[1]

    def _begin(self, wanted: Wanted) -> None:
        run = _SearchRun(self._scanner, wanted)
        threads.begin(run)
        self._look = run

    def _take(self) -> Optional[Tuple[Wanted, SearchResult]]:
        if self._look is None:
            return None
        self._look.join(self._patience)
        if self._look.is_alive():
            return None
        ended, self._look = self._look, None
        if ended.problem is not None:
            raise ended.problem
        return None if ended.looked is None else (ended.wanted, ended.looked)
