"""Calls that wait for PostgreSQL on an event loop without keeping it: each in a greenlet; must know no question.

Ordinary code that is run as a fiber looks as it does on a thread. Where it waits, for an answer of the database or for
a connection, the event loop goes on with others, and comes back to it. Nothing may be locked meanwhile that others on
the event loop want, as they would wait for good: what waits outside of the functions here keeps all of them waiting.
The event loop is spoken to outside of fibers alone: where one waits it leaves word of what is to be done.
"""

from __future__ import annotations

import contextvars
import select
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from greenlet import GreenletExit, getcurrent, greenlet

if TYPE_CHECKING:
    # Loaded by whoever has an event loop: an operator's command would wait for it.
    import asyncio

T = TypeVar("T")

MOST_FREE = 32
"""Of what fibers ran on so much is kept for others, with some 20 kB each."""


class Signal(Protocol):
    """What one waits for and another one gives, once, from whatever thread."""

    def acquire(self, *, timeout: float) -> bool:
        """Wait for it, so many seconds at most; whether it came."""
        ...

    def release(self) -> None:
        """Give it."""
        ...


class Fiber:
    """A call under way, which belongs to the event loop that began it."""

    def __init__(self, call: Callable[[], Any], ended: asyncio.Future[Any], loop: asyncio.AbstractEventLoop) -> None:
        self._call, self._ended = call, ended
        self._stack: _Stack | None = _stacks.free.pop() if _stacks.free else _Stack()
        self._stack.fiber = self
        # Else it would begin in an empty one.
        self._stack.gr_context = contextvars.copy_context()
        self.loop = loop
        self._over: asyncio.Future[None] | None = None
        self.seconds = 0.0
        """How long it kept the event loop so far."""
        self.wrote = False
        """Whether it committed something, so that it must not be begun anew elsewhere."""

    def go_on(self) -> None:
        """Have it run until it waits again or ends; for the event loop alone."""
        # Not from within what found that there is something to be read: that has a list on its part of the stack, into
        # which the event loop writes by its address, and where a fiber may have its own part meanwhile.
        self.loop.call_soon(self.run_now)

    def run_now(self) -> None:
        """Run it until it waits again or ends; for what the event loop calls by itself alone."""
        stack, began = self._stack, time.monotonic()
        if stack is None:
            return  # what it ran on is another one's by now
        wanted = stack.switch()
        self.seconds += time.monotonic() - began
        if wanted is not None:
            wanted()

    def wait(self, wanted: Callable[[], object]) -> None:
        """Let the event loop go on, until something calls go_on; for the fiber itself alone.

        wanted: called outside of the fiber, as soon as it waits, to have go_on called in the end.
        """
        assert self._stack is not None, "it has ended"
        self._stack.parent.switch(wanted)

    def over(self) -> asyncio.Future[None]:
        """What comes once it has ended, for who gave up what comes of it."""
        self._over = self.loop.create_future()
        if self._stack is None:
            self._over.set_result(None)
        return self._over

    def work(self) -> bool:
        """Make the call, and answer whether what it ran on may run another one; for what it runs on alone."""
        result, failed = None, None
        try:
            result = self._call()
        except BaseException as error:  # raised where the fiber is waited for
            failed = error
        ended = self._ended
        del self._call, self._ended  # with what it raised they lead back here, in a circle
        self._stack = None
        if self._over is not None and not self._over.done():
            self._over.set_result(None)
        if not ended.done():
            if failed is None:
                ended.set_result(result)
            else:
                ended.set_exception(failed)
        taken_down = isinstance(failed, GreenletExit)  # as what nobody can wake any more is
        del failed, ended
        return not taken_down


class _Stack(greenlet):  # type: ignore[misc]
    """What fibers run on, one after another: for each new one the system hands out memory, and takes it back."""

    def __init__(self) -> None:
        super().__init__(_run_fibers)
        self.fiber: Fiber | None = None


def _run_fibers() -> None:
    # Without a name for what runs here: it would keep itself.
    while getcurrent().fiber.work():
        getcurrent().fiber = getcurrent().gr_context = None
        if len(_stacks.free) >= MOST_FREE:
            return
        _stacks.free.append(getcurrent())
        getcurrent().parent.switch(None)


class _Stacks(threading.local):
    """Those of a thread on which nothing runs."""

    def __init__(self) -> None:
        self.free: list[_Stack] = []


_stacks = _Stacks()


class DescriptorWatch:
    """Has an event loop look for what comes from a descriptor, of which one fiber at a time waits for it.

    To begin and end that for each answer takes five calls of the system, so it goes on for as long as the descriptor is
    open. The event loop looks at an epoll that looks at the descriptor: of one that broke, with an answer still to be
    read, libuv tells once and then never again, and whoever reads that answer and waits for the next would wait for
    good. Of an epoll it knows no error.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, descriptor: int, unasked: Callable[[], None]) -> None:
        """unasked: reads what came while nobody waited."""
        self.loop = loop
        self._descriptor = descriptor
        self._unasked = unasked
        self._fiber: Fiber | None = None
        self._until = 0.0
        self._late: asyncio.TimerHandle | None = None
        self._epoll: select.epoll | None = None

    def until_readable(self, fiber: Fiber, seconds: float) -> bool:
        """Wait until there is something to be read, so many seconds at most; for the fiber itself alone. False where
        nothing came.
        """
        self._fiber = fiber
        self._until = time.monotonic() + seconds
        fiber.wait(self._begin)
        return self._until > 0

    def end(self) -> None:
        """Look no more; to be called by the loop's own thread, or when the loop runs no more."""
        epoll, self._epoll = self._epoll, None
        late, self._late = self._late, None
        if late is not None:
            late.cancel()
        if epoll is None:
            return
        if not self.loop.is_closed():
            self.loop.remove_reader(epoll.fileno())
        epoll.close()

    def _begin(self) -> None:
        if self._epoll is None:
            self._epoll = select.epoll(1)
            self._epoll.register(self._descriptor, select.EPOLLIN)
            self.loop.add_reader(self._epoll.fileno(), self._readable)
        if self._late is None:
            # One for all that is waited for until then: to make one for each answer takes longer than many an answer.
            self._late = self.loop.call_later(max(0.0, self._until - time.monotonic()), self._look)

    def _look(self) -> None:
        """See whether somebody waits for too long by now."""
        self._late, fiber = None, self._fiber
        if fiber is None:
            return
        if time.monotonic() < self._until:
            self._begin()
            return
        self._fiber, self._until = None, 0.0
        fiber.go_on()

    def _readable(self) -> None:
        fiber, self._fiber = self._fiber, None
        if fiber is not None:
            fiber.go_on()
        else:
            self._unasked()


def current() -> Fiber | None:
    """The fiber that is running, None outside of any."""
    here = getcurrent()
    return here.fiber if isinstance(here, _Stack) else None


def begin(call: Callable[[], T], loop: asyncio.AbstractEventLoop) -> tuple[Fiber, asyncio.Future[T]]:
    """Run a call until it waits for the first time; answers what it goes on in, and what will come of it. loop: the one
    that runs now.
    """
    ended: asyncio.Future[T] = loop.create_future()
    fiber = Fiber(call, ended, loop)
    fiber.run_now()
    return fiber, ended


def aside(call: Callable[[], T]) -> T:
    """What a call answers that waits in ways of its own: in a fiber a thread runs it, elsewhere it is just called."""
    fiber = current()
    if fiber is None:
        return call()
    handed: list[asyncio.Future[T]] = []

    def hand_over() -> None:
        handed.append(fiber.loop.run_in_executor(None, call))
        handed[0].add_done_callback(lambda _done: fiber.go_on())

    fiber.wait(hand_over)
    return handed[0].result()


def sleep(seconds: float) -> None:
    """Wait for a while."""
    fiber = current()
    if fiber is None:
        time.sleep(seconds)
        return
    fiber.wait(lambda: fiber.loop.call_later(seconds, fiber.go_on))


def signal() -> Signal:
    """A signal for whoever calls this, to be waited for by him alone."""
    fiber = current()
    if fiber is not None:
        return _FiberSignal(fiber)
    lock = threading.Lock()  # a lock taken twice is the cheapest signal there is
    lock.acquire()
    return cast(Signal, lock)


class _FiberSignal:
    def __init__(self, fiber: Fiber) -> None:
        self._fiber = fiber
        self._given = False
        self._waiting = False
        self._late: asyncio.TimerHandle | None = None

    def acquire(self, *, timeout: float) -> bool:
        if not self._given:
            self._waiting = True
            self._fiber.wait(lambda: self._until(timeout))
        return self._given

    def release(self) -> None:
        here = current()
        if here is not None and here.loop is self._fiber.loop:
            self._fiber.loop.call_soon(self._give)
        else:
            self._fiber.loop.call_soon_threadsafe(self._give)

    def _until(self, timeout: float) -> None:
        self._late = self._fiber.loop.call_later(timeout, self._give_up)

    def _give(self) -> None:
        self._given = True
        if self._waiting:
            self._waiting = False
            if self._late is not None:
                self._late.cancel()
            self._fiber.run_now()

    def _give_up(self) -> None:
        if self._waiting:
            self._waiting = False
            self._fiber.go_on()
