"""Answers calls of many callers in batches, each batch by one function call on a thread; must decide nothing about a
call.

A batch takes the calls that arrived during the one before it, so that no call waits for others to arrive. Callers take
turns, so that many calls of one caller do not delay another's. For use on the event loop only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Generic, TypeVar

from keyrack.errors import Kind, Refusal
from keyrack.web.fair_queueing import BUSY_SECONDS, MAX_WAITING
from keyrack.web.slices import RoundRobin, Slices
from keyrack.web.threads import Threads

MAX_YIELD_SECONDS = 1.0
"""How long these calls let another kind of calls go first, between two batches."""
Q = TypeVar("Q")
A = TypeVar("A")


class Batches(Generic[Q, A]):
    """Answers questions in batches, one batch at a time, on a thread."""

    def __init__(
        self,
        work: Callable[[Sequence[Q]], Sequence[A | Exception]],
        most: int,
        slices: Slices,
        threads: Threads,
        after: Callable[[], int] | None = None,
    ) -> None:
        """work: given the questions of a batch, returns an answer or an exception to raise for each; most: the largest
        batch; slices: hand out the answers; threads: run the work; after: counts waiting calls of another kind, which
        go first for MAX_YIELD_SECONDS.
        """
        self._work, self._most, self._slices, self._threads, self._after = work, most, slices, threads, after
        self._queue: RoundRobin[tuple[Q, asyncio.Future[A]]] = RoundRobin()
        self._running: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many questions are in no batch yet."""
        return len(self._queue)

    async def ask(self, caller: Hashable, question: Q) -> A:
        """The answer; raises an exception that the work returned. If too many wait, one gets Refusal UNAVAILABLE."""
        if len(self._queue) >= MAX_WAITING:
            self._turn_away()
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._queue.put(caller, (question, answer))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await answer

    def _turn_away(self) -> None:
        """Make room: drop the last question of the caller who has most in the queue."""
        _, future = self._queue.take_last()
        if not future.done():
            words = "Too many requests at once. Try again in a moment."
            future.set_exception(Refusal(Kind.UNAVAILABLE, "busy", words, retry_after=BUSY_SECONDS))

    def _take(self) -> list[tuple[Q, asyncio.Future[A]]]:
        batch: list[tuple[Q, asyncio.Future[A]]] = []
        while self._queue and len(batch) < self._most:
            question, future = self._queue.take()
            if not future.done():
                batch.append((question, future))
        return batch

    async def _give_way(self) -> None:
        """Wait while `after` counts any, for MAX_YIELD_SECONDS at most."""
        if self._after is None:
            return
        until = time.monotonic() + MAX_YIELD_SECONDS
        while self._after() and time.monotonic() < until:
            await asyncio.sleep(0.01)

    async def _run(self) -> None:
        try:
            while True:
                await self._give_way()
                batch = self._take()
                if not batch:
                    break
                questions = [question for question, _ in batch]
                answers: Sequence[A | Exception]
                try:
                    answers = await self._threads.run(partial(self._work, questions))
                except Exception as error:  # raised for each who asked
                    answers = [error] * len(batch)
                for (_, future), answer in zip(batch, answers, strict=True):
                    self._slices.go_on(partial(_hand_out, future, answer))
        finally:
            self._running = None
            if self._queue:
                self._running = asyncio.create_task(self._run())


def _hand_out(future: asyncio.Future[A], answer: A | Exception) -> None:
    if future.done():
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
