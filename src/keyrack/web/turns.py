"""Shares the threads that answer calls between callers, so that none of them waits for another's; must decide nothing
about a call but when it runs.

All of it belongs to the event loop: nothing here is called from another thread.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum, unique
from typing import TypeVar

import anyio
import anyio.to_thread

from keyrack.errors import Kind, Refusal
from keyrack.web.callers import Caller

T = TypeVar("T")

# How long what a caller used is held against it: after so many seconds a third of it is left.
MEMORY_SECONDS = 1.0
MUCH_SECONDS = 0.2
"""Processor time of late beyond which a caller's calls count as long ones, in seconds."""
MOST_ACCOUNTS = 20_000
LONG_BODY = 65_536
"""From this size, in bytes, a body makes a call a long one."""
MOST_WAITING_OF_ONE = 256
MOST_WAITING = 20_000
BUSY_SECONDS = 2


@unique
class Lane(Enum):
    """Places of their own for calls that must not wait for others: how many in all, and for one caller."""

    KNOWN = ("known", 24, 12)
    """Short calls of those who proved before who they are."""
    STRANGERS = ("strangers", 4, 3)
    """Of all others; most of them end with a no."""
    LONG = ("long", 2, 2)
    """What takes much, whoever it is from: the interpreter runs one thread at a time, and two that do not let go of
    it by themselves are as many as the short calls beside them can bear."""
    HASHING = ("hashing", 2, 2)
    """Checks and hashes of passwords for those who were here before."""
    GUESSES = ("guesses", 2, 1)
    """The same for strangers."""
    BODIES = ("bodies", 32, 4)
    """Long bodies that are being read; each is kept in memory until it is whole."""

    @property
    def places(self) -> int:
        """How many calls may run at once."""
        return self.value[1]

    @property
    def of_one(self) -> int:
        """How many of them may be one caller's."""
        return self.value[2]


@dataclass(slots=True)
class _Used:
    """Processor time that a caller used of late, in seconds, as it was at a time."""

    seconds: float = 0.0
    at: float = 0.0

    def now(self, at: float) -> float:
        return self.seconds * math.exp((self.at - at) / MEMORY_SECONDS)

    def add(self, seconds: float, at: float) -> None:
        self.seconds, self.at = self.now(at) + seconds, at

    @property
    def rank(self) -> float:
        """Who used less has the lower one; it does not change while nothing is used, as all forget alike."""
        return math.log(self.seconds) + self.at / MEMORY_SECONDS if self.seconds else -math.inf


@dataclass(slots=True)
class _Line:
    """One caller's calls in one lane."""

    running: int = 0
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)


class Turns:
    """Who has used least of late comes first, and nobody has all places of a lane."""

    def __init__(self) -> None:
        self._used: OrderedDict[Hashable, _Used] = OrderedDict()
        self._lanes = {lane: _Places(lane, self._rank) for lane in Lane}
        self._threads: anyio.CapacityLimiter | None = None

    async def run(self, caller: Caller, call: Callable[[], T], *, long: bool = False, hashes: bool = False) -> T:
        """What the call answers, which runs on a thread. long: it is known to take much; hashes: a password.

        Raises Refusal THROTTLED or UNAVAILABLE when too many wait.
        """
        if self._threads is None:
            self._threads = anyio.CapacityLimiter(sum(lane.places for lane in Lane))
        used = self._account(caller.name)

        spent = 0.0

        def timed() -> T:
            nonlocal spent
            began = time.thread_time()
            try:
                return call()
            finally:
                spent = time.thread_time() - began

        async with self._lanes[self._lane(caller, used, long, hashes)].place(caller.name):
            try:
                return await anyio.to_thread.run_sync(timed, limiter=self._threads)
            finally:
                # Hashing leaves the interpreter to the others, and has bounds of its own.
                used.add(0.0 if hashes and not long else spent, time.monotonic())

    @asynccontextmanager
    async def reading(self, caller: Caller, *, long: bool) -> AsyncIterator[None]:
        """While a body is read; a long one waits for its turn before any of it is."""
        if not long:
            yield
            return
        async with self._lanes[Lane.BODIES].place(caller.name):
            yield

    def _lane(self, caller: Caller, used: _Used, long: bool, hashes: bool) -> Lane:
        if hashes and not long:
            return Lane.HASHING if caller.at_home else Lane.GUESSES
        if long or used.now(time.monotonic()) > MUCH_SECONDS:
            return Lane.LONG
        return Lane.KNOWN if caller.known else Lane.STRANGERS

    def _account(self, name: Hashable) -> _Used:
        used = self._used.get(name)
        if used is None:
            used = self._used[name] = _Used()
            if len(self._used) > MOST_ACCOUNTS:
                self._used.popitem(last=False)
        self._used.move_to_end(name)
        return used

    def _rank(self, name: Hashable) -> float:
        used = self._used.get(name)
        return used.rank if used is not None else -math.inf


class _Places:
    """The places of one lane, and who waits for one."""

    def __init__(self, lane: Lane, rank: Callable[[Hashable], float]) -> None:
        self._lane = lane
        self._rank = rank
        self._free = lane.places
        self._lines: dict[Hashable, _Line] = {}
        # Callers who wait and may have a place; each stands here once.
        self._next: list[tuple[float, int, Hashable]] = []
        self._listed: set[Hashable] = set()
        self._numbers = itertools.count()
        self._waiting = 0

    @asynccontextmanager
    async def place(self, name: Hashable) -> AsyncIterator[None]:
        """A place, as soon as it is this caller's turn. Raises Refusal."""
        line = self._lines.setdefault(name, _Line())
        if self._free and line.running < self._lane.of_one and not line.waiting:
            self._free -= 1
            line.running += 1
        else:
            await self._wait(name, line)
        try:
            yield
        finally:
            self._leave(name, line)

    async def _wait(self, name: Hashable, line: _Line) -> None:
        if len(line.waiting) >= MOST_WAITING_OF_ONE:
            words = f"You have more than {MOST_WAITING_OF_ONE} requests waiting here. Send fewer at once."
            raise Refusal(Kind.THROTTLED, "too-many-at-once", words, retry_after=BUSY_SECONDS)
        if self._waiting >= MOST_WAITING:
            self._forget(name, line)
            words = "Too many requests at once. Try again in a moment."
            raise Refusal(Kind.UNAVAILABLE, "busy", words, retry_after=BUSY_SECONDS)
        came: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.waiting.append(came)
        self._waiting += 1
        self._list(name, line)
        try:
            await came
        except asyncio.CancelledError:
            if came.cancelled():
                line.waiting.remove(came)
                self._waiting -= 1
                self._forget(name, line)
            else:
                self._leave(name, line)  # the place was given in the very moment of giving up
            raise

    def _leave(self, name: Hashable, line: _Line) -> None:
        self._free += 1
        line.running -= 1
        self._list(name, line)
        self._forget(name, line)
        while self._free and self._next:
            _, _, following = heapq.heappop(self._next)
            self._listed.discard(following)
            other = self._lines.get(following)
            came = next((one for one in other.waiting if not one.done()), None) if other is not None else None
            if other is None or came is None or other.running >= self._lane.of_one:
                continue
            other.waiting.remove(came)
            self._waiting -= 1
            self._free -= 1
            other.running += 1
            came.set_result(None)
            self._list(following, other)

    def _list(self, name: Hashable, line: _Line) -> None:
        if line.waiting and line.running < self._lane.of_one and name not in self._listed:
            self._listed.add(name)
            heapq.heappush(self._next, (self._rank(name), next(self._numbers), name))

    def _forget(self, name: Hashable, line: _Line) -> None:
        if not line.running and not line.waiting:
            self._lines.pop(name, None)
