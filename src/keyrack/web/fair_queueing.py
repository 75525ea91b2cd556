"""Fair queueing of calls: each kind of call has a concurrency limit, each caller a lower one, and the caller who used
least processor time lately is served first; must decide nothing about a call but when it runs.

For use on the event loop only: nothing here may be called from another thread.
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

# The time constant of the decay of used processor time: after so many seconds it counts 1/e.
MEMORY_SECONDS = 1.0
HEAVY_SECONDS = 0.2
"""A caller who used more processor time than this lately has their calls treated as long ones."""
MAX_CALLERS = 20_000
LONG_BODY = 65_536
"""A call whose body has at least so many bytes is a long one."""
MAX_WAITING_PER_CALLER = 256
MAX_WAITING = 20_000
BUSY_SECONDS = 2
ROUND_SECONDS = 0.004
"""How long calls on the event loop may take in one of its rounds before further ones have to queue."""


@unique
class CallPool(Enum):
    """A kind of calls that must not wait for other kinds, as its name, its concurrency limit and that of one caller."""

    KNOWN = ("known", 24, 12)
    """Short calls of callers whose credentials were accepted before."""
    STRANGERS = ("strangers", 4, 3)
    """Short calls of all others; most of them are refused."""
    LONG = ("long", 2, 2)
    """Long calls of all callers. The interpreter runs one thread at a time; more than two that do not release it would
    slow down short calls."""
    HASHING = ("hashing", 2, 2)
    """Hashing of passwords for callers from addresses where somebody signed in before."""
    GUESSES = ("guesses", 2, 1)
    """The same for strangers."""
    EVENT_LOOP = ("event loop", 4, 4)
    """Calls that run on the event loop itself, those that exceed ROUND_SECONDS of a round; between two rounds the loop
    handles new input."""
    FIBERS = ("fibers", 24, 16)
    """Calls in fibers on the event loop, which wait for PostgreSQL; each may need a connection."""
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
"""By how much the niceness of hashing threads is higher: one hash takes a processor for a tenth of a second."""


@dataclass(slots=True)
class _CpuTime:
    """The processor time that a caller used lately, in seconds, decayed as of the monotonic time `at`."""

    seconds: float = 0.0
    at: float = 0.0

    def now(self, at: float) -> float:
        return self.seconds * math.exp((self.at - at) / MEMORY_SECONDS)

    def add(self, seconds: float, at: float) -> None:
        self.seconds, self.at = self.now(at) + seconds, at

    @property
    def rank(self) -> float:
        """Lower for callers who used less; constant while they use nothing, as all decay at the same rate."""
        return math.log(self.seconds) + self.at / MEMORY_SECONDS if self.seconds else -math.inf


@dataclass(slots=True)
class _Flow:
    """One caller's calls in one pool: how many run, and those that wait, in order of arrival."""

    running: int = 0
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)


class FairScheduler:
    """Runs calls fairly between callers: the one who used least comes first, and none can fill a pool alone."""

    def __init__(self) -> None:
        self._used: OrderedDict[Hashable, _CpuTime] = OrderedDict()
        self._queues = {pool: _Queue(pool, self._rank) for pool in CallPool}
        # Handing a call to a thread of this executor takes a third of the time that it takes with anyio.
        self._threads = Threads(sum(pool.limit for pool in ON_THREADS), "keyrack-call")
        hashing = sum(pool.limit for pool in ON_STEPPED_BACK_THREADS)
        self._round_seconds: float | None = None  # what this round of the event loop took so far
        self._hashing_threads = Threads(hashing, "keyrack-hash", first=_step_back)

    async def run(self, caller: Caller, call: Callable[[], T], *, long: bool = False, hashes: bool = False) -> T:
        """Run a call on a thread and return its result. long: it is known to take long; hashes: it hashes a password.

        Raises Refusal THROTTLED or UNAVAILABLE when too many calls wait or no thread can be started, and what the call
        raises.
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
                # Not counted for hashing, which releases the interpreter and has limits of its own.
                used.add(0.0 if hashes and not long else spent, time.monotonic())

    async def on_event_loop(self, caller: Caller, call: Callable[[], T]) -> T:
        """Run a call on the event loop itself and return its result; it must be short and wait for nothing.

        Raises as run does.
        """
        used = self._account(caller.name)
        queue = self._queues[CallPool.EVENT_LOOP]
        if not queue.waits and (self._round_seconds or 0.0) < ROUND_SECONDS:
            return self._in_this_round(used, call)
        flow = await queue.take(caller.name)
        began = time.monotonic()  # no system call, unlike reading a thread's processor time
        try:
            return call()
        finally:
            ended = time.monotonic()
            used.add(ended - began, ended)
            # In the next round, or calls that one caller sends together would run before others' are even read.
            asyncio.get_running_loop().call_soon(queue.leave, caller.name, flow)

    def _in_this_round(self, used: _CpuTime, call: Callable[[], T]) -> T:
        """Run a short call without a slot, as nobody waits: taking and returning a slot costs as much as many calls."""
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
        """Run a call in a fiber: on the event loop, which goes on while the call waits for the database. Return its
        result. Raises as run does.
        """
        used = self._account(caller.name)
        queue = self._queues[CallPool.FIBERS]
        flow = await queue.take(caller.name)
        try:
            fiber, ended = fibers.begin(call, asyncio.get_running_loop())
            try:
                return await ended
            except asyncio.CancelledError:
                await fiber.completion()  # the slot is in use until the call ends, as in _whole
                raise
            finally:
                used.add(fiber.seconds, time.monotonic())
                del fiber, ended  # an error's traceback refers to this frame: a cycle until garbage collection
        finally:
            queue.leave(caller.name, flow)

    async def in_group_commit(self, caller: Caller, call: Callable[[], T], group_commits: GroupCommits) -> T:
        """Run a call on the event loop in a transaction shared with others; return its result. Raises as run does."""
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
        """Around reading a request's body. long: it waits for a slot of CallPool.BODIES first."""
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
    """The result of a thread. When cancelled it still waits for the thread, which uses its slot until it ends."""
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise
    finally:
        del running  # an error's traceback refers to this frame: a cycle


class _Queue:
    """The queue of one pool: its free slots, and the callers who wait for one, ordered by used processor time."""

    def __init__(self, pool: CallPool, rank: Callable[[Hashable], float]) -> None:
        self._rank = rank
        self._free, self._limit_per_caller = pool.limit, pool.limit_per_caller
        self._flows: dict[Hashable, _Flow] = {}
        # A heap of the callers who wait and are below their own limit, each once.
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
        """A slot for the duration of the block, as take() gives it."""
        flow = await self.take(name)
        try:
            yield
        finally:
            self.leave(name, flow)

    async def take(self, name: Hashable) -> _Flow:
        """Wait until it is this caller's turn and take a slot, to be given back by leave(). Raises Refusal THROTTLED or
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
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        flow.waiting.append(turn)
        self._waiting += 1
        self._list(name, flow)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                flow.waiting.remove(turn)
                self._waiting -= 1
                self._forget(name, flow)
                # A slot that was freed meanwhile may have been meant for this call: give it to the next.
                self._serve()
            else:
                self.leave(name, flow)  # it was given a slot just before it was cancelled
            raise

    def leave(self, name: Hashable, flow: _Flow) -> None:
        """Give a slot back, and give it to the next caller."""
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
            turn = next((one for one in other.waiting if not one.done()), None) if other is not None else None
            if other is None or turn is None or other.running >= self._limit_per_caller:
                continue
            other.waiting.remove(turn)
            self._waiting -= 1
            self._free -= 1
            other.running += 1
            turn.set_result(None)
            self._list(following, other)

    def _list(self, name: Hashable, flow: _Flow) -> None:
        if flow.waiting and flow.running < self._limit_per_caller and name not in self._listed:
            self._listed.add(name)
            heapq.heappush(self._next, (self._rank(name), next(self._numbers), name))

    def _forget(self, name: Hashable, flow: _Flow) -> None:
        if not flow.running and not flow.waiting:
            self._flows.pop(name, None)
