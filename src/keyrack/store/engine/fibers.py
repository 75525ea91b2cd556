"""Calls that wait for PostgreSQL on an event loop without blocking it: each in a greenlet; must know no question.

Code that runs as a fiber is the same as on a thread. Where it waits, for an answer of the database or for a
connection, the event loop runs other fibers, and resumes it later. A fiber must hold no lock while it waits: another
fiber on the same event loop that wants the lock would block the loop for good. Code that waits by other means than the
functions here blocks the whole event loop. A fiber calls the event loop's methods only through Fiber.wait, which runs
them outside of the fiber.
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

MAX_FREE = 32
"""How many idle stacks a thread keeps for new fibers; each takes some 20 kB."""


class Signal(Protocol):
    """One caller waits for it, another one sets it, once, from any thread."""

    def acquire(self, *, timeout: float) -> bool:
        """Wait until it is set, `timeout` seconds at most; False where it was not."""
        ...

    def release(self) -> None:
        """Set it."""
        ...


class Fiber:
    """A running call. It belongs to the event loop that started it."""

    def __init__(self, call: Callable[[], Any], ended: asyncio.Future[Any], loop: asyncio.AbstractEventLoop) -> None:
        self._call, self._ended = call, ended
        self._stack: _Stack | None = _stacks.free.pop() if _stacks.free else _Stack()
        self._stack.fiber = self
        # Otherwise it would start with an empty context.
        self._stack.gr_context = contextvars.copy_context()
        self.loop = loop
        self._completion: asyncio.Future[None] | None = None
        self.seconds = 0.0
        """How long it occupied the event loop so far."""
        self.wrote = False
        """Whether it committed something: then it must not be started again elsewhere."""

    def resume(self) -> None:
        """Schedule it to run until it waits again or ends. Called on the event loop's thread only."""
        # Not at once: the loop's own callback for readable descriptors holds a list on the C stack, which the loop
        # writes to by its address, and a greenlet that is switched to may move that part of the stack away.
        self.loop.call_soon(self.resume_now)

    def resume_now(self) -> None:
        """Run it until it waits again or ends. Called only from a callback that the event loop itself scheduled."""
        stack, began = self._stack, time.monotonic()
        if stack is None:
            return  # it has ended, and its stack may run another fiber by now
        wanted = stack.switch()
        self.seconds += time.monotonic() - began
        if wanted is not None:
            wanted()

    def wait(self, wanted: Callable[[], object]) -> None:
        """Let the event loop run others, until something calls resume(). Called by the fiber itself only.

        wanted: called outside of the fiber, as soon as it waits; it arranges that resume() is called later.
        """
        assert self._stack is not None, "it has ended"
        self._stack.parent.switch(wanted)

    def completion(self) -> asyncio.Future[None]:
        """A future that is done once the fiber has ended, for a caller that cancelled its result."""
        self._completion = self.loop.create_future()
        if self._stack is None:
            self._completion.set_result(None)
        return self._completion

    def work(self) -> bool:
        """Make the call. Answers whether its stack may run another fiber. Called by the stack only."""
        result, failed = None, None
        try:
            result = self._call()
        except BaseException as error:  # raised where the fiber is waited for
            failed = error
        ended = self._ended
        del self._call, self._ended  # with the error's traceback they would be a reference cycle
        self._stack = None
        if self._completion is not None and not self._completion.done():
            self._completion.set_result(None)
        if not ended.done():
            if failed is None:
                ended.set_result(result)
            else:
                ended.set_exception(failed)
        killed = isinstance(failed, GreenletExit)  # raised in a greenlet that nothing refers to any more
        del failed, ended
        return not killed


class _Stack(greenlet):  # type: ignore[misc]
    """A greenlet that runs fibers one after another: a new greenlet for each would cost the system memory calls."""

    def __init__(self) -> None:
        super().__init__(_run_fibers)
        self.fiber: Fiber | None = None


def _run_fibers() -> None:
    # No local variable for the greenlet: it would keep itself alive.
    while getcurrent().fiber.work():
        getcurrent().fiber = getcurrent().gr_context = None
        if len(_stacks.free) >= MAX_FREE:
            return
        _stacks.free.append(getcurrent())
        getcurrent().parent.switch(None)


class _Stacks(threading.local):
    """The idle stacks of a thread."""

    def __init__(self) -> None:
        self.free: list[_Stack] = []


_stacks = _Stacks()


class DescriptorWatch:
    """Has an event loop watch a descriptor; one fiber at a time waits until it is readable.

    To register and unregister the descriptor for each answer takes five system calls, so it stays registered while it
    is open. The event loop watches an epoll that watches the descriptor. Of a connection that broke while an answer was
    still to be read, libuv reports the error once and then nothing more: a fiber that reads that answer and waits for
    the next one would wait for good. An epoll reports no such error.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, descriptor: int, on_unsolicited: Callable[[], None]) -> None:
        """on_unsolicited: called to read what came while no fiber waited."""
        self.loop = loop
        self._descriptor = descriptor
        self._on_unsolicited = on_unsolicited
        self._fiber: Fiber | None = None
        self._until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._epoll: select.epoll | None = None

    def until_readable(self, fiber: Fiber, seconds: float) -> bool:
        """Wait until the descriptor is readable, `seconds` at most; False where it was not. For the fiber only."""
        self._fiber = fiber
        self._until = time.monotonic() + seconds
        fiber.wait(self._begin)
        return self._until > 0

    def end(self) -> None:
        """Stop watching. Called on the loop's own thread, or when the loop no longer runs."""
        epoll, self._epoll = self._epoll, None
        late, self._timer = self._timer, None
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
        if self._timer is None:
            # One timer for all waits until then: to make one for each answer takes longer than many an answer.
            self._timer = self.loop.call_later(max(0.0, self._until - time.monotonic()), self._check_timeout)

    def _check_timeout(self) -> None:
        """Resume the fiber whose time is over; start the timer anew where a later wait is still within its time."""
        self._timer, fiber = None, self._fiber
        if fiber is None:
            return
        if time.monotonic() < self._until:
            self._begin()
            return
        self._fiber, self._until = None, 0.0
        fiber.resume()

    def _readable(self) -> None:
        fiber, self._fiber = self._fiber, None
        if fiber is not None:
            fiber.resume()
        else:
            self._on_unsolicited()


def current() -> Fiber | None:
    """The fiber that is running, None outside of any."""
    here = getcurrent()
    return here.fiber if isinstance(here, _Stack) else None


def begin(call: Callable[[], T], loop: asyncio.AbstractEventLoop) -> tuple[Fiber, asyncio.Future[T]]:
    """Run a call until it waits for the first time. Answers its fiber and a future of its result. loop: the one that
    runs now.
    """
    ended: asyncio.Future[T] = loop.create_future()
    fiber = Fiber(call, ended, loop)
    fiber.resume_now()
    return fiber, ended


def run_in_thread(call: Callable[[], T]) -> T:
    """Make a call that blocks, and answer its result: in a fiber a thread makes it, elsewhere it is just called."""
    fiber = current()
    if fiber is None:
        return call()
    handed: list[asyncio.Future[T]] = []

    def hand_over() -> None:
        handed.append(fiber.loop.run_in_executor(None, call))
        handed[0].add_done_callback(lambda _done: fiber.resume())

    fiber.wait(hand_over)
    return handed[0].result()


def sleep(seconds: float) -> None:
    """Wait so many seconds; a fiber lets its event loop run meanwhile."""
    fiber = current()
    if fiber is None:
        time.sleep(seconds)
        return
    fiber.wait(lambda: fiber.loop.call_later(seconds, fiber.resume))


def signal() -> Signal:
    """A signal for the calling fiber or thread, which alone may wait for it."""
    fiber = current()
    if fiber is not None:
        return _FiberSignal(fiber)
    lock = threading.Lock()  # a lock taken twice is the cheapest signal there is
    lock.acquire()
    return cast(Signal, lock)


class _FiberSignal:
    def __init__(self, fiber: Fiber) -> None:
        self._fiber = fiber
        self._is_set = False
        self._waiting = False
        self._timer: asyncio.TimerHandle | None = None

    def acquire(self, *, timeout: float) -> bool:
        if not self._is_set:
            self._waiting = True
            self._fiber.wait(lambda: self._until(timeout))
        return self._is_set

    def release(self) -> None:
        here = current()
        if here is not None and here.loop is self._fiber.loop:
            self._fiber.loop.call_soon(self._set)
        else:
            self._fiber.loop.call_soon_threadsafe(self._set)

    def _until(self, timeout: float) -> None:
        self._timer = self._fiber.loop.call_later(timeout, self._time_out)

    def _set(self) -> None:
        self._is_set = True
        if self._waiting:
            self._waiting = False
            if self._timer is not None:
                self._timer.cancel()
            self._fiber.resume_now()

    def _time_out(self) -> None:
        if self._waiting:
            self._waiting = False
            self._fiber.resume()
