"""Threads for calls that hash passwords, apart from all others; must decide nothing about a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread

from keyrack.errors import Kind, Refusal

T = TypeVar("T")

AT_ONCE = 2
MOST_WAITING = 200


class Lanes:
    """One lane for addresses that somebody signed in from before, one for all others; each has threads of its own.

    Who waits holds no thread, so that a flood of sign-ins keeps nobody else waiting, and one of strangers keeps
    nobody waiting who was here before.
    """

    def __init__(self) -> None:
        self._threads: dict[bool, anyio.CapacityLimiter] = {}

    async def run(self, call: Callable[[], T], *, at_home: bool) -> T:
        """What the call answers. Raises Refusal UNAVAILABLE when too many wait."""
        threads = self._threads.get(at_home)
        if threads is None:
            threads = self._threads[at_home] = anyio.CapacityLimiter(AT_ONCE)
        if threads.statistics().tasks_waiting >= MOST_WAITING:
            words = "Too many sign-ins at once. Try again in a moment."
            raise Refusal(Kind.UNAVAILABLE, "busy", words, retry_after=2)
        return await anyio.to_thread.run_sync(call, limiter=threads)
