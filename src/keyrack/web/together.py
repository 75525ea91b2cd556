"""Calls of many callers that are answered by one piece of work on a thread; must decide nothing about a call.

What came while the last piece of work ran makes up the next one, so nobody ever waits for others to come. Callers take
turns, so who asks often is no quicker than who asks once. All of it belongs to the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

import anyio
import anyio.to_thread

from keyrack.errors import Kind, Refusal
from keyrack.web.fair_queueing import BUSY_SECONDS, MOST_WAITING

LONGEST_WAY = 1.0
"""Seconds for which one kind of calls lets another one go first, between two batches."""
Q = TypeVar("Q")
A = TypeVar("A")


class Together(Generic[Q, A]):
    """Answers questions in batches: one at a time, each on a thread."""

    def __init__(
        self,
        work: Callable[[Sequence[Q]], Sequence[A | Exception]],
        most: int,
        after: Callable[[], int] | None = None,
    ) -> None:
        """work: an answer, or what is raised, for each question of a batch; most: questions in one; after: how many
        wait for something that goes first, for a while.
        """
        self._work, self._most, self._after = work, most, after
        self._queues: OrderedDict[Hashable, deque[tuple[Q, asyncio.Future[A]]]] = OrderedDict()
        self._waiting = 0
        self._running: asyncio.Task[None] | None = None
        self._thread: anyio.CapacityLimiter | None = None

    @property
    def waiting(self) -> int:
        """How many wait for an answer and are in no batch yet."""
        return self._waiting

    async def ask(self, caller: Hashable, question: Q) -> A:
        """The answer, or whatever the work raises for it. Raises Refusal UNAVAILABLE where too many wait."""
        if self._waiting >= MOST_WAITING:
            self._turn_away()
        came: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(caller, deque()).append((question, came))
        self._waiting += 1
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await came

    def _turn_away(self) -> None:
        """Make room: who has most in the queue loses what came last."""
        longest = max(self._queues, key=lambda caller: len(self._queues[caller]))
        _, came = self._queues[longest].pop()
        self._waiting -= 1
        if not self._queues[longest]:
            del self._queues[longest]
        if not came.done():
            words = "Too many requests at once. Try again in a moment."
            came.set_exception(Refusal(Kind.UNAVAILABLE, "busy", words, retry_after=BUSY_SECONDS))

    def _take(self) -> list[tuple[Q, asyncio.Future[A]]]:
        batch: list[tuple[Q, asyncio.Future[A]]] = []
        while self._queues and len(batch) < self._most:
            caller, queue = self._queues.popitem(last=False)
            question, came = queue.popleft()
            self._waiting -= 1
            if queue:
                self._queues[caller] = queue
            if not came.done():
                batch.append((question, came))
        return batch

    async def _give_way(self) -> None:
        """Let go first what does, for a second at most."""
        if self._after is None:
            return
        until = time.monotonic() + LONGEST_WAY
        while self._after() and time.monotonic() < until:
            await asyncio.sleep(0.01)

    async def _run(self) -> None:
        if self._thread is None:
            self._thread = anyio.CapacityLimiter(1)
        try:
            while True:
                await self._give_way()
                batch = self._take()
                if not batch:
                    break
                questions = [question for question, _ in batch]
                answers: Sequence[A | Exception]
                try:
                    answers = await anyio.to_thread.run_sync(self._work, questions, limiter=self._thread)
                except Exception as error:  # raised for each who asked
                    answers = [error] * len(batch)
                for (_, came), answer in zip(batch, answers, strict=True):
                    if came.done():
                        continue
                    if isinstance(answer, Exception):
                        came.set_exception(answer)
                    else:
                        came.set_result(answer)
        finally:
            self._running = None
            if self._queues:
                self._running = asyncio.create_task(self._run())
