"""Calls of many callers answered in batches, each by one piece of work on a thread; must decide nothing about a call.

What came while the last batch was answered makes up the next one, so nobody ever waits for others to come. Callers take
turns, so who asks often is no quicker than who asks once. All of it belongs to the event loop.
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

LONGEST_YIELD = 1.0
"""For how long one kind of calls lets another go first, between two batches, in seconds."""
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
        """work: an answer, or what is raised, for each question of a batch; most: questions in one; slices: in which
        answers are handed out; threads: that do the work; after: counts calls of another kind, which go first for a
        while.
        """
        self._work, self._most, self._slices, self._threads, self._after = work, most, slices, threads, after
        self._queue: RoundRobin[tuple[Q, asyncio.Future[A]]] = RoundRobin()
        self._running: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many wait for an answer and are in no batch yet."""
        return len(self._queue)

    async def ask(self, caller: Hashable, question: Q) -> A:
        """The answer, or whatever the work raises for it. Raises Refusal UNAVAILABLE where too many wait."""
        if len(self._queue) >= MAX_WAITING:
            self._turn_away()
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._queue.put(caller, (question, answer))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await answer

    def _turn_away(self) -> None:
        """Make room: drop the last question of the caller who has most in the queue."""
        _, came = self._queue.take_last()
        if not came.done():
            words = "Too many requests at once. Try again in a moment."
            came.set_exception(Refusal(Kind.UNAVAILABLE, "busy", words, retry_after=BUSY_SECONDS))

    def _take(self) -> list[tuple[Q, asyncio.Future[A]]]:
        batch: list[tuple[Q, asyncio.Future[A]]] = []
        while self._queue and len(batch) < self._most:
            question, came = self._queue.take()
            if not came.done():
                batch.append((question, came))
        return batch

    async def _give_way(self) -> None:
        """Let what `after` counts go first, for a second at most."""
        if self._after is None:
            return
        until = time.monotonic() + LONGEST_YIELD
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
                for (_, came), answer in zip(batch, answers, strict=True):
                    self._slices.go_on(partial(_hand_out, came, answer))
        finally:
            self._running = None
            if self._queue:
                self._running = asyncio.create_task(self._run())


def _hand_out(came: asyncio.Future[A], answer: A | Exception) -> None:
    if came.done():
        return
    if isinstance(answer, Exception):
        came.set_exception(answer)
    else:
        came.set_result(answer)
