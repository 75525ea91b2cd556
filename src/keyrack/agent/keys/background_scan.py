"""Scans for unmanaged keys and removes them on a thread of its own; must never keep the agent's main loop waiting.

A scan takes a few milliseconds where nothing changed, and the main loop waits for it. After a change of the accounts or
of sshd's settings it can take seconds, as sshd is asked about each account; where a file system does not answer, it can
take longer. Then it goes on in the background, and documents are obeyed meanwhile. Keys are removed from files on this
thread too: the owner of a file can make that slow.

There is no lock, because nothing is shared: at most one scan runs at a time, only that scan uses the scanner, and its
result is read only when its thread has ended. Its thread forks (as_account), as the main one does: the child makes
plain system calls until it ends, and a child that waits for anything else is killed.
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
    """What to scan for. before, names: see Scanner.scan; removals: the keys to remove where the scan finds them."""

    before: Tuple[str, ...] = ()
    names: Tuple[str, ...] = ()
    removals: Tuple[KeyRemoval, ...] = ()


class ScanResult(NamedTuple):
    """What a scan found, after its removals. cut: the places it could not read whole; unlisted: why an account may be
    missing in it, in words; problems: what could not be removed, in words.
    """

    keys: List[ReportedKey]
    cut: Tuple[Cut, ...]
    unlisted: str
    problems: List[str]


class _ScanThread(threading.Thread):
    """One scan. Its result or problem may be read only when the thread has ended."""

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
    keys = scanner.scan(request.before, request.names)
    named = {(order.path, order.fingerprint) for order in request.removals}
    problems: List[str] = []
    if any((one.path, one.fingerprint) in named for one in keys):
        problems = remove_keys(request.removals, keys, scanner.rules)
        keys = scanner.scan(request.before, request.names)
    return ScanResult(keys, scanner.cut, scanner.problem, problems)


class BackgroundScan:
    """All scans of one host, asked for by one thread."""

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        self._thread: Optional[_ScanThread] = None
        self._wait_seconds: Optional[float] = None

    def limit_wait(self) -> None:
        """From now on scan() waits WAIT_SECONDS at most; without this, it waits until the scan has ended."""
        self._wait_seconds = WAIT_SECONDS

    @property
    def is_running(self) -> bool:
        """Whether a scan was begun whose result scan() has not answered yet."""
        return self._thread is not None

    def scan(
        self, before: Sequence[str], names: Sequence[str] = (), removals: Sequence[KeyRemoval] = ()
    ) -> Optional[ScanResult]:
        """The result of the scan that runs, or of a new one; None where it still runs: ask again. See ScanRequest.

        Where the running scan was begun with another request and keys are to be removed, another scan begins after it.
        Raises SshdProblem or OSError, as Scanner.scan does.
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
