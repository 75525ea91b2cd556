"""Knows the hosts that wait for a new document, and wakes them; must know no document.

One query in each process finds out for all of them whether something changed; announcements of changes wake them at
once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

from keyrack.core.hosts.contacts import POLL_SECONDS, CurrentHosts
from keyrack.logs import logger
from keyrack.store.database import DatabaseUnavailable
from keyrack.web.slices import MAX_STEPS, Slices

log = logger("keyrack")


class ContactWaiters:
    """Who waits for which server, woken from any thread after a commit."""

    def __init__(self, slices: Slices) -> None:
        """slices: run the wake-ups, where there are many."""
        self.known = CurrentHosts()
        self._slices = slices
        self._waiters: dict[int, set[asyncio.Future[None]]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = False

    def start(self) -> None:
        """Remember the event loop of the waiters; to be called on it."""
        self._loop = asyncio.get_running_loop()

    def wake(self, server_ids: frozenset[int]) -> None:
        """Wake whoever waits for these servers; from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._set, server_ids)

    def let_go(self) -> None:
        """Wake all waiters and hold no more, so that a stopping service need not wait for hosts; from any thread."""
        self._closing = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.wake_all)

    def wake_all(self) -> None:
        """Wake all waiters and forget all hosts' states, so that each is read again."""
        self.known.forget_all()
        self._set(frozenset(self._waiters))

    def listen(self, server_id: int) -> asyncio.Future[None]:
        """A future, done when a change of the server is announced; to be given to `leave` afterwards.

        To be called before reading the revision, so that a change announced in between is not missed.
        """
        # get_running_loop() takes a system call, so the known loop is used.
        loop = self._loop or asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters.setdefault(server_id, set()).add(waiter)
        return waiter

    def leave(self, server_id: int, waiter: asyncio.Future[None]) -> None:
        """Stop listening."""
        waiters = self._waiters.get(server_id)
        if waiters is not None:
            waiters.discard(waiter)
            if not waiters:
                del self._waiters[server_id]

    @property
    def closing(self) -> bool:
        """Whether the service is stopping."""
        return self._closing

    async def poll(self, changed: Callable[[], Awaitable[frozenset[int]]]) -> None:
        """Every POLL_SECONDS, until cancelled, wake the hosts whose state changed. changed: reads their servers' ids;
        if it fails, all hosts are woken, and each is read again.
        """
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                different = await changed()
            except DatabaseUnavailable:
                self.wake_all()
                continue
            except Exception:  # waiting hosts must still be answered; nothing else would log it
                log.exception("asking what hosts missed failed")
                self.wake_all()
                continue
            self.known.note_poll()
            self._set(different)

    def _set(self, server_ids: frozenset[int]) -> None:
        if len(server_ids) <= MAX_STEPS:
            for server_id in server_ids:
                self._wake(server_id)
            return
        for server_id in server_ids:
            self._slices.begin(("host", server_id), partial(self._wake, server_id))

    def _wake(self, server_id: int) -> None:
        # Its noted state may be from before the change.
        self.known.forget(server_id)
        for waiter in self._waiters.get(server_id, ()):
            if not waiter.done():
                waiter.set_result(None)


async def within(waiter: asyncio.Future[None], seconds: float) -> bool:
    """Wait until a waiter is woken, for so many seconds at most; returns whether it was. If not, it is cancelled."""
    if waiter.done():
        return True
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = waiter

    def end() -> None:
        if not over.done():
            over.cancel()

    timer = loop.call_later(seconds, end)
    try:
        with suppress(asyncio.CancelledError):
            await waiter
            return True
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError
        return False
    finally:
        timer.cancel()
