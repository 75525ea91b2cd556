"""Scans for unmanaged keys and removes them on a thread of its own; must never keep the agent's main loop waiting.

A scan takes a few milliseconds where nothing changed, and then its result is there at once. After a change of the
accounts or of sshd's settings it can take seconds, as sshd is asked about each account, and as long as it likes where
a file system does not answer; then it goes on by itself, and documents are obeyed meanwhile. Keys are taken out of
files here too: whose files they are, in whose hands is how long that takes.

There is no lock, because nothing is shared: at most one scan goes on at a time, the scanner is its alone, and its
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

WAIT_SECONDS = 0.05  # for which the main loop waits for a scan


class ScanRequest(NamedTuple):
    """What a scan is asked for. before, names: see Scanner.scan; removals: what to remove of what is found."""

    before: Tuple[str, ...] = ()
    names: Tuple[str, ...] = ()
    removals: Tuple[KeyRemoval, ...] = ()


class ScanResult(NamedTuple):
    """What a scan found, after its removals. cut: what it proves nothing about; unlisted: why an account may be missing
    in it; problems: what could not be removed, in words.
    """

    found: List[ReportedKey]
    cut: Tuple[Cut, ...]
    unlisted: str
    problems: List[str]


class _ScanThread(threading.Thread):
    """One scan. Its result, or why there is none, counts once the thread has ended."""

    def __init__(self, scanner: Scanner, request: ScanRequest) -> None:
        super().__init__(name="scan", daemon=True)
        self._scanner = scanner
        self.request = request
        self.result: Optional[ScanResult] = None
        self.problem: Optional[Exception] = None

    def run(self) -> None:
        """Scan."""
        try:
            self.result = scan(self._scanner, self.request)
        except Exception as problem:  # the main loop judges it
            self.problem = problem


def scan(scanner: Scanner, request: ScanRequest) -> ScanResult:
    """Scan now, and remove what is asked for. Raises SshdProblem or OSError, as scan does."""
    found = scanner.scan(request.before, request.names)
    named = {(order.path, order.fingerprint) for order in request.removals}
    problems: List[str] = []
    if any((one.path, one.fingerprint) in named for one in found):
        problems = remove_keys(request.removals, found, scanner.rules)
        found = scanner.scan(request.before, request.names)
    return ScanResult(found, scanner.cut, scanner.problem, problems)


class BackgroundScan:
    """All scans of one host, asked for by one thread."""

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        self._thread: Optional[_ScanThread] = None
        self._wait_seconds: Optional[float] = None

    def limit_wait(self) -> None:
        """From now on scan() waits for at most WAIT_SECONDS; without this, until all is found."""
        self._wait_seconds = WAIT_SECONDS

    @property
    def is_running(self) -> bool:
        """Whether a scan was begun whose result nobody took yet."""
        return self._thread is not None

    def scan(
        self, before: Sequence[str], names: Sequence[str] = (), removals: Sequence[KeyRemoval] = ()
    ) -> Optional[ScanResult]:
        """The result of the scan that runs, or of a new one; None: it takes longer, ask again. See ScanRequest.

        Where other removals are asked for than when it began, another one begins after it. Raises SshdProblem or
        OSError, as scan does.
        """
        request = ScanRequest(tuple(before), tuple(sorted(names)), tuple(removals))
        if self._thread is None:
            self._begin(request)
        taken = self._take()
        if taken is not None and taken[0] != request and request.removals:
            self._begin(request)
            taken = self._take() or taken
        return None if taken is None else taken[1]

    def _begin(self, request: ScanRequest) -> None:
        thread = _ScanThread(self._scanner, request)
        threads.begin(thread)
        self._thread = thread

    def _take(self) -> Optional[Tuple[ScanRequest, ScanResult]]:
        if self._thread is None:
            return None
        self._thread.join(self._wait_seconds)
        if self._thread.is_alive():
            return None
        ended, self._thread = self._thread, None
        if ended.problem is not None:
            raise ended.problem
        return None if ended.result is None else (ended.request, ended.result)
