"""Group commit on SQLite: the event loop itself runs short changes, many in one transaction; must decide nothing
about a call.

For use on the event loop only. The thread that writes to SQLite lends a transaction, and commits it while the event
loop goes on; the calls are answered once the commit is on the disk.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from keyrack.store.database import Database, LentTransaction, WouldBlock

T = TypeVar("T")

SLICE_SECONDS = 0.006
"""How long calls run before the event loop handles other input; meanwhile it serves nobody else."""
MIN_CALLS = 4
"""How many calls run in a slice at least, even if the processor was taken away for a while."""
TRANSACTION_SECONDS = 0.03
"""How long a transaction lasts at most, even if more calls wait, as those that ran wait for its commit."""
MAX_CALLS = 32
"""The most calls in one transaction."""


class _Call:
    """A call with its result or error."""

    __slots__ = ("error", "future", "result", "run")

    def __init__(self, run: Callable[[], Any]) -> None:
        self.run = run
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.result: Any = None
        self.error: Exception | None = None

    def end(self, error: Exception | None) -> None:
        future, failed = self.future, error or self.error
        # The error's traceback refers to this object: the cycle would keep the request until garbage collection.
        del self.future, self.error
        if future.done():
            return
        if failed is None:
            future.set_result(self.result)
        else:
            future.set_exception(failed)


class GroupCommits:
    """Runs calls in lent transactions, one after another. Each takes the calls that arrived during the commit before
    it, and those that arrive while it runs. A commit costs the same for one call as for many.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: deque[_Call] = deque()
        self._asked = False

    async def run(self, run: Callable[[], T]) -> T:
        """Run a call within Database.nonblocking; returns its result once its changes are on the disk.

        Raises what the call raises. WouldBlock means that nothing of it was kept, and a thread may run it again.
        """
        call = _Call(run)
        self._waiting.append(call)
        self._ask()
        result: T = await call.future
        return result

    def _ask(self) -> None:
        if self._asked or not self._waiting:
            return
        loop = asyncio.get_running_loop()
        ran: list[_Call] = []
        was_lent = False

        def lent(transaction: LentTransaction) -> None:
            nonlocal was_lent
            was_lent = True
            loop.call_soon_threadsafe(self._begin, transaction, ran)

        def ended(error: Exception | None) -> None:
            if was_lent:
                loop.call_soon_threadsafe(self._end, ran, error)
            else:
                loop.call_soon_threadsafe(self._refuse, error or WouldBlock("the writer lent nothing"))

        self._asked = True
        try:
            self._database.lend_transaction(LentTransaction(lent, ended))
        except (WouldBlock, RuntimeError) as error:
            self._refuse(WouldBlock(str(error)))

    def _refuse(self, error: Exception) -> None:
        """Fail all waiting calls, as their transaction cannot begin; later calls ask for another one."""
        self._asked = False
        waiting, self._waiting = list(self._waiting), deque()
        self._end(waiting, error)

    def _begin(self, transaction: LentTransaction, ran: list[_Call]) -> None:
        if transaction.begin():
            self._slice(transaction, ran, time.monotonic() + TRANSACTION_SECONDS)
        else:
            self._give_back(transaction)

    def _slice(self, transaction: LentTransaction, ran: list[_Call], end: float) -> None:
        """Run calls for SLICE_SECONDS, then continue in the next round; end the transaction when none wait."""
        goes_on, later = False, asyncio.get_running_loop().call_soon
        try:
            until, fewest = time.monotonic() + SLICE_SECONDS, len(ran) + MIN_CALLS
            while self._waiting and len(ran) < MAX_CALLS and (len(ran) < fewest or time.monotonic() < until):
                call = self._waiting.popleft()
                if not call.future.done():
                    ran.append(call)
                    self._run(transaction, call, later)
            goes_on = bool(self._waiting) and len(ran) < MAX_CALLS and time.monotonic() < end
        finally:
            if not goes_on:
                self._give_back(transaction)
        if goes_on:
            later(self._slice, transaction, ran, end)

    def _give_back(self, transaction: LentTransaction) -> None:
        transaction.give_back()
        self._asked = False
        self._ask()

    def _run(self, transaction: LentTransaction, call: _Call, later: Callable[[Callable[[], None]], object]) -> None:
        try:
            with self._database.nonblocking(transaction, later):
                call.result = call.run()
        except Exception as error:  # raised where the call is awaited
            call.error = error

    def _end(self, ran: list[_Call], error: Exception | None) -> None:
        for call in ran:
            call.end(error)
