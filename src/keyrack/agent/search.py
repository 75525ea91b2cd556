"""Has the look for keys done beside the agent's main work, which it must never keep waiting; it changes nothing here.

A look takes a millisecond where nothing changed, and then its result is there at once. After a change of the
accounts or of sshd's settings it can take seconds, as sshd is asked about each account; then it goes on by itself,
and documents are obeyed meanwhile.

There is no lock, because nothing is shared: at most one look goes on at a time, the scanner is its alone, and its
result is taken only when its thread has ended. That thread forks (as_account.run), as the main one does; what the
child does until it ends is plain system calls, none of which waits for another thread.
"""

from __future__ import annotations

import threading
from typing import List, Optional, Sequence

from keyrack.agent.found import Found, Scanner

PATIENCE_SECONDS = 0.05  # what the main work waits for a look


class _Look(threading.Thread):
    """One look. What it found, or why it found nothing, counts once the thread has ended."""

    def __init__(self, scanner: Scanner, before: Sequence[str]) -> None:
        super().__init__(name="search", daemon=True)
        self._scanner = scanner
        self._before = before
        self.found: List[Found] = []
        self.problem: Optional[Exception] = None

    def run(self) -> None:
        """Look."""
        try:
            self.found = self._scanner.scan(self._before)
        except Exception as problem:  # the main work judges it
            self.problem = problem


class Search:
    """All looks of one host, asked for by one thread."""

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        self._look: Optional[_Look] = None
        self._patience: Optional[float] = None

    def hurry(self) -> None:
        """From now on look() waits for at most PATIENCE_SECONDS; without this, until all is found."""
        self._patience = PATIENCE_SECONDS

    @property
    def goes_on(self) -> bool:
        """Whether a look was begun whose result nobody took yet."""
        return self._look is not None

    def look(self, before: Sequence[str]) -> Optional[List[Found]]:
        """What the look that goes on found, or a new one; None: it takes longer, ask again. before: see Scanner.scan.

        Raises SshdProblem or OSError, as scan does.
        """
        if self._look is None:
            self._look = _Look(self._scanner, before)
            self._look.start()
        self._look.join(self._patience)
        if self._look.is_alive():
            return None
        ended, self._look = self._look, None
        if ended.problem is not None:
            raise ended.problem
        return ended.found

    def look_to_the_end(self, before: Sequence[str]) -> List[Found]:
        """What a new look finds, however long it takes: for what must not be done by an old result."""
        if self._look is not None:
            self._look.join()
            self._look = None
        return self._scanner.scan(before)
