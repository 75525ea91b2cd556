"""Limits how much of each round of the event loop agents' calls take, so that thousands of hosts do not delay other
callers; must decide nothing about a call.

A round of the event loop runs everything that is ready when the round begins. So only a slice of the agents' calls is
made ready at a time; between two slices the event loop handles new input and other callers' requests. For use on the
event loop only.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")

MAX_STEPS = 32
"""The most steps in a round; each takes about 0.1 ms."""

Step = Callable[[], None]


class RoundRobin(Generic[T]):
    """A queue in which each caller's first item comes before any caller's second."""

    def __init__(self) -> None:
        self._queues: OrderedDict[Hashable, deque[T]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, caller: Hashable, wanted: T) -> None:
        """Add an item, after those of the same caller."""
        self._queues.setdefault(caller, deque()).append(wanted)
        self._count += 1

    def take(self) -> T:
        """Remove and return the next item, callers in turns. Raises KeyError if there is none."""
        caller, queue = self._queues.popitem(last=False)
        wanted = queue.popleft()
        self._count -= 1
        if queue:
            self._queues[caller] = queue
        return wanted

    def take_last(self) -> T:
        """Remove and return the last item of the caller who has most. Raises ValueError if there is none."""
        longest = max(self._queues, key=lambda caller: len(self._queues[caller]))
        wanted = self._queues[longest].pop()
        self._count -= 1
        if not self._queues[longest]:
            del self._queues[longest]
        return wanted


class Slices:
    """Runs steps of agents' calls, MAX_STEPS a round: first of calls under way, then of new ones, callers in turns."""

    def __init__(self) -> None:
        self._going_on: deque[Step] = deque()
        self._beginning: RoundRobin[Step] = RoundRobin()
        self._runs = False

    def go_on(self, step: Step) -> None:
        """Queue a step of a call that is under way."""
        self._going_on.append(step)
        self._run_soon()

    def begin(self, caller: Hashable, step: Step) -> None:
        """Queue the first step of a call, to be run when it is its caller's turn."""
        self._beginning.put(caller, step)
        self._run_soon()

    def _run_soon(self) -> None:
        if not self._runs:
            self._runs = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        try:
            for _ in range(MAX_STEPS):
                if self._going_on:
                    self._going_on.popleft()()
                elif self._beginning:
                    self._beginning.take()()
                else:
                    break
        finally:
            self._runs = False
            if self._going_on or self._beginning:
                self._run_soon()
