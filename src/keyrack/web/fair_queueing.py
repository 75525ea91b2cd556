"""Fair queueing for the threads that answer calls: each kind of call has a concurrency limit, a caller one within it,
and whoever used least processor time lately is served first; must decide nothing about a call but when it runs.

All of it belongs to the event loop: nothing here is called from another thread.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import math
import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum, unique
from typing import TypeVar

from keyrack.errors import Kind, Refusal
from keyrack.store.engine import fibers
from keyrack.web.callers import Caller
from keyrack.web.group_commits import GroupCommits
from keyrack.web.threads import Threads

T = TypeVar("T")

# The time constant by which used processor time decays: after so many seconds 1/e of it still counts.
MEMORY_SECONDS = 1.0
HEAVY_SECONDS = 0.2
"""If a caller used more processor time than this lately, in seconds, their calls count as long ones."""
MAX_CALLERS = 20_000
LONG_BODY = 65_536
"""From this size, in bytes, a body makes a call a long one."""
MAX_WAITING_PER_CALLER = 256
MAX_WAITING = 20_000
BUSY_SECONDS = 2
ROUND_SECONDS = 0.004
"""How long calls that are answered at once may take in one round of the event loop before they queue."""


@unique
class CallPool(Enum):
    """A kind of calls that must not wait for other kinds: how many of it run at once, and how many of one caller."""

    KNOWN = ("known", 24, 12)
    """Short calls of those who proved before who they are."""
    STRANGERS = ("strangers", 4, 3)
    """Short calls of all others; most of them are refused."""
    LONG = ("long", 2, 2)
    """Long calls, whoever makes them. The interpreter runs one thread at a time; with more than two that do not give it
    up by themselves the short calls would suffer."""
    HASHING = ("hashing", 2, 2)
    """Checks and hashes of passwords for those who were here before."""
    GUESSES = ("guesses", 2, 1)
    """The same for strangers."""
    EVENT_LOOP = ("event loop", 4, 4)
    """What the event loop answers by itself in each of its rounds, beyond ROUND_SECONDS; between two rounds it
    handles all that came in."""
    FIBERS = ("fibers", 24, 16)
    """What waits for PostgreSQL on the event loop; each may need a connection."""
    GROUP_COMMITS = ("group commits", 32, 16)
    """Short changes on SQLite that wait for the transaction in which they are made, or for its commit."""
    BODIES = ("bodies", 32, 4)
    """Long bodies that are being read; each is kept in memory until it is whole."""

    @property
    def limit(self) -> int:
        """How many calls may run at once."""
        return self.value[1]

    @property
    def limit_per_caller(self) -> int:
        """How many of them may be one caller's."""
        return self.value[2]


ON_THREADS = (CallPool.KNOWN, CallPool.STRANGERS, CallPool.LONG)
ON_STEPPED_BACK_THREADS = (CallPool.HASHING, CallPool.GUESSES)
STEP_BACK = 5
"""The niceness that threads which hash have above all others: a hash takes a processor for a tenth of a second."""


@dataclass(slots=True)
class _CpuTime:
    """Processor time that a caller used lately, in seconds, as of a point in time."""

    seconds: float = 0.0
    at: float = 0.0

    def now(self, at: float) -> float:
        return self.seconds * math.exp((self.at - at) / MEMORY_SECONDS)

    def add(self, seconds: float, at: float) -> None:
        self.seconds, self.at = self.now(at) + seconds, at

    @property
    def rank(self) -> float:
        """Lower for callers who used less; constant while they use nothing, as all is forgotten equally fast."""
        return math.log(self.seconds) + self.at / MEMORY_SECONDS if self.seconds else -math.inf


@dataclass(slots=True)
class _Flow:
    """One caller's calls in one pool: how many run, and those that wait, first come first served."""

    running: int = 0
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)


class FairScheduler:
    """Runs calls on threads, fairly between callers: least used comes first, and nobody fills a pool."""

    def __init__(self) -> None:
        self._used: OrderedDict[Hashable, _CpuTime] = OrderedDict()
        self._queues = {pool: _Queue(pool, self._rank) for pool in CallPool}
        # SimpleQueue's hand-over of a call to a thread takes a third of the time that anyio's takes.
        self._threads = Threads(sum(pool.limit for pool in ON_THREADS), "keyrack-call")
        hashing = sum(pool.limit for pool in ON_STEPPED_BACK_THREADS)
        self._round_seconds: float | None = None  # what this round of the event loop took so far
        self._hashing_threads = Threads(hashing, "keyrack-hash", first=_step_back)

    async def run(self, caller: Caller, call: Callable[[], T], *, long: bool = False, hashes: bool = False) -> T:
        """What the call answers, which runs on a thread. long: it is known to take much; hashes: a password.

        Raises Refusal THROTTLED or UNAVAILABLE when too many wait, or where the system gives no thread.
        """
        used = self._account(caller.name)

        spent = 0.0

        def timed() -> T:
            nonlocal spent
            began = time.thread_time()
            try:
                return call()
            finally:
                spent = time.thread_time() - began

        context = contextvars.copy_context()
        pool = self._pool(caller, used, long, hashes)
        threads = self._hashing_threads if pool in ON_STEPPED_BACK_THREADS else self._threads
        async with self._queues[pool].slot(caller.name):
            try:
                return await _whole(threads.run(lambda: context.run(timed)))
            finally:
                # Hashing leaves the interpreter to the others, and has bounds of its own.
                used.add(0.0 if hashes and not long else spent, time.monotonic())

    async def on_event_loop(self, caller: Caller, call: Callable[[], T]) -> T:
        """What the call answers, which runs on the event loop itself: it must be a short one, and wait for nothing.

        Raises Refusal as run does, and whatever the call raises.
        """
        used = self._account(caller.name)
        queue = self._queues[CallPool.EVENT_LOOP]
        if not queue.waits and (self._round_seconds or 0.0) < ROUND_SECONDS:
            return self._in_this_round(used, call)
        flow = await queue.take(caller.name)
        began = time.monotonic()  # which takes no system call, unlike a thread's processor time
        try:
            return call()
        finally:
            ended = time.monotonic()
            used.add(ended - began, ended)
            # Not before the next round, or the calls of one who sends many at once would run before others' are read.
            asyncio.get_running_loop().call_soon(queue.leave, caller.name, flow)

    def _in_this_round(self, used: _CpuTime, call: Callable[[], T]) -> T:
        """What a short call answers where nobody waits: a slot, taken and given back, takes as long as many a call."""
        if self._round_seconds is None:
            self._round_seconds = 0.0
            asyncio.get_running_loop().call_soon(self._next_round)
        began = time.monotonic()
        try:
            return call()
        finally:
            ended = time.monotonic()
            self._round_seconds += ended - began
            used.add(ended - began, ended)

    def _next_round(self) -> None:
        self._round_seconds = None

    async def in_fiber(self, caller: Caller, call: Callable[[], T]) -> T:
        """What the call answers, which runs on the event loop, and lets it go on while it waits for the database.

        Raises Refusal as run does, and whatever the call raises.
        """
        used = self._account(caller.name)
        queue = self._queues[CallPool.FIBERS]
        flow = await queue.take(caller.name)
        try:
            fiber, ended = fibers.begin(call, asyncio.get_running_loop())
            try:
                return await ended
            except asyncio.CancelledError:
                await fiber.completion()  # a caller who gives up waits for it too, as in _whole
                raise
            finally:
                used.add(fiber.seconds, time.monotonic())
                del fiber, ended  # what it raised leads back here: the circle would live until the collector comes
        finally:
            queue.leave(caller.name, flow)

    async def in_group_commit(self, caller: Caller, call: Callable[[], T], group_commits: GroupCommits) -> T:
        """What the call answers, which runs on the event loop in a transaction with others'. Raises as run does."""
        used = self._account(caller.name)

        def timed() -> T:
            began = time.monotonic()
            try:
                return call()
            finally:
                ended = time.monotonic()
                used.add(ended - began, ended)

        queue = self._queues[CallPool.GROUP_COMMITS]
        flow = await queue.take(caller.name)
        try:
            return await group_commits.run(timed)
        finally:
            queue.leave(caller.name, flow)

    @asynccontextmanager
    async def reading(self, caller: Caller, *, long: bool) -> AsyncIterator[None]:
        """While a body is read; a long one waits for its turn before any of it is."""
        if not long:
            yield
            return
        async with self._queues[CallPool.BODIES].slot(caller.name):
            yield

    def _pool(self, caller: Caller, used: _CpuTime, long: bool, hashes: bool) -> CallPool:
        if hashes and not long:
            return CallPool.HASHING if caller.at_home else CallPool.GUESSES
        if long or used.now(time.monotonic()) > HEAVY_SECONDS:
            return CallPool.LONG
        return CallPool.KNOWN if caller.known else CallPool.STRANGERS

    def _account(self, name: Hashable) -> _CpuTime:
        used = self._used.get(name)
        if used is None:
            used = self._used[name] = _CpuTime()
            if len(self._used) > MAX_CALLERS:
                self._used.popitem(last=False)
        self._used.move_to_end(name)
        return used

    def _rank(self, name: Hashable) -> float:
        used = self._used.get(name)
        return used.rank if used is not None else -math.inf


def _step_back() -> None:
    """Lower the priority of the calling thread; on Linux each thread has a niceness of its own."""
    with suppress(OSError):
        own = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, own, os.getpriority(os.PRIO_PROCESS, own) + STEP_BACK)


async def _whole(running: asyncio.Future[T]) -> T:
    """What a thread returns. A caller who gives up waits for it too, as the thread uses its slot until then."""
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise
    finally:
        del running  # what it raised leads back here, in a circle


class _Queue:
    """The queue of one pool: its free slots, and the callers who wait for one, by the processor time they used."""

    def __init__(self, pool: CallPool, rank: Callable[[Hashable], float]) -> None:
        self._rank = rank
        self._free, self._limit_per_caller = pool.limit, pool.limit_per_caller
        self._flows: dict[Hashable, _Flow] = {}
        # A heap of the callers who wait and are below their own limit; each stands here once.
        self._next: list[tuple[float, int, Hashable]] = []
        self._listed: set[Hashable] = set()
        self._numbers = itertools.count()
        self._waiting = 0

    @property
    def waits(self) -> bool:
        """Whether anybody waits for a slot."""
        return self._waiting > 0

    @asynccontextmanager
    async def slot(self, name: Hashable) -> AsyncIterator[None]:
        """A slot for a while, as take() gives it."""
        flow = await self.take(name)
        try:
            yield
        finally:
            self.leave(name, flow)

    async def take(self, name: Hashable) -> _Flow:
        """A slot, as soon as it is this caller's turn, to be given back by leave(). Raises Refusal THROTTLED or
        UNAVAILABLE when too many wait.
        """
        flow = self._flows.setdefault(name, _Flow())
        if self._free and flow.running < self._limit_per_caller and not flow.waiting:
            self._free -= 1
            flow.running += 1
        else:
            await self._wait(name, flow)
        return flow

    async def _wait(self, name: Hashable, flow: _Flow) -> None:
        if len(flow.waiting) >= MAX_WAITING_PER_CALLER:
            words = f"You have more than {MAX_WAITING_PER_CALLER} requests waiting here. Send fewer at once."
            raise Refusal(Kind.THROTTLED, "too-many-at-once", words, retry_after=BUSY_SECONDS)
        if self._waiting >= MAX_WAITING:
            self._forget(name, flow)
            words = "Too many requests at once. Try again in a moment."
            raise Refusal(Kind.UNAVAILABLE, "busy", words, retry_after=BUSY_SECONDS)
        came: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        flow.waiting.append(came)
        self._waiting += 1
        self._list(name, flow)
        try:
            await came
        except asyncio.CancelledError:
            if came.cancelled():
                flow.waiting.remove(came)
                self._waiting -= 1
                self._forget(name, flow)
                # A slot that came free meanwhile was for this call, and somebody came after it.
                self._serve()
            else:
                self.leave(name, flow)  # the slot was given in the very moment of giving up
            raise

    def leave(self, name: Hashable, flow: _Flow) -> None:
        """Give a slot back, to whoever is next."""
        self._free += 1
        flow.running -= 1
        self._list(name, flow)
        self._forget(name, flow)
        self._serve()

    def _serve(self) -> None:
        """Give free slots to those who wait."""
        while self._free and self._next:
            _, _, following = heapq.heappop(self._next)
            self._listed.discard(following)
            other = self._flows.get(following)
            came = next((one for one in other.waiting if not one.done()), None) if other is not None else None
            if other is None or came is None or other.running >= self._limit_per_caller:
                continue
            other.waiting.remove(came)
            self._waiting -= 1
            self._free -= 1
            other.running += 1
            came.set_result(None)
            self._list(following, other)

    def _list(self, name: Hashable, flow: _Flow) -> None:
        if flow.waiting and flow.running < self._limit_per_caller and name not in self._listed:
            self._listed.add(name)
            heapq.heappush(self._next, (self._rank(name), next(self._numbers), name))

    def _forget(self, name: Hashable, flow: _Flow) -> None:
        if not flow.running and not flow.waiting:
            self._flows.pop(name, None)
