"""What agents' calls may take of each round of the event loop, so that thousands of hosts keep nobody else waiting;
must decide nothing about a call.

A round serves all that is there when it begins. So only a slice of the agents' calls is there at a time: between two
slices the event loop handles all that came in, and people's calls are answered. All of it belongs to the event loop.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")

MAX_STEPS = 32
"""Steps in a round at most; each takes about a tenth of a millisecond."""

Step = Callable[[], None]


class RoundRobin(Generic[T]):
    """A queue in which each caller's first item comes before any caller's second."""

    def __init__(self) -> None:
        self._queues: OrderedDict[Hashable, deque[T]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, caller: Hashable, wanted: T) -> None:
        """Add an item, behind those of the same caller."""
        self._queues.setdefault(caller, deque()).append(wanted)
        self._count += 1

    def take(self) -> T:
        """The next one, of whoever's turn it is. Raises KeyError where there is none."""
        caller, queue = self._queues.popitem(last=False)
        wanted = queue.popleft()
        self._count -= 1
        if queue:
            self._queues[caller] = queue
        return wanted

    def take_last(self) -> T:
        """The last item of the caller who has most. Raises ValueError if there is none."""
        longest = max(self._queues, key=lambda caller: len(self._queues[caller]))
        wanted = self._queues[longest].pop()
        self._count -= 1
        if not self._queues[longest]:
            del self._queues[longest]
        return wanted


class Slices:
    """Runs steps of agents' calls, MAX_STEPS a round: calls that were begun first, then new ones, callers in turns."""

    def __init__(self) -> None:
        self._going_on: deque[Step] = deque()
        self._beginning: RoundRobin[Step] = RoundRobin()
        self._runs = False

    def go_on(self, step: Step) -> None:
        """Run a step of a call that was begun."""
        self._going_on.append(step)
        self._run_soon()

    def begin(self, caller: Hashable, step: Step) -> None:
        """Run the first step of a call, once it is its caller's turn."""
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
