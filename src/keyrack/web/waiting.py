"""Hosts that wait for their documents: who they are, and how they are woken; must know no document.

One query in each process finds for all of them whether something changed, and announcements wake them at once.
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
        """slices: in which many are woken."""
        self.known = CurrentHosts()
        self._slices = slices
        self._waiters: dict[int, set[asyncio.Future[None]]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = False

    def start(self) -> None:
        """Remember the loop whose waiters are woken; call it there."""
        self._loop = asyncio.get_running_loop()

    def wake(self, server_ids: frozenset[int]) -> None:
        """Wake whoever waits for these servers; from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._set, server_ids)

    def let_go(self) -> None:
        """Wake everybody for good, so that a stopping service does not wait for its hosts; from any thread."""
        self._closing = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.wake_all)

    def wake_all(self) -> None:
        """Wake everybody, and forget what is known of all hosts, so that each is asked about again."""
        self.known.forget_all()
        self._set(frozenset(self._waiters))

    def listen(self, server_id: int) -> asyncio.Future[None]:
        """Done as soon as the server is announced; to be given to `leave` in the end.

        Listen before reading the revision: what is announced between the reading and the wait is kept.
        """
        # The loop that is known already: to find the running one asks the system each time.
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
        """Every POLL_SECONDS, until cancelled, wake the hosts whose state changed. changed: reads which these are;
        where it fails, all hosts are woken, and each is read again.
        """
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                different = await changed()
            except DatabaseUnavailable:
                self.wake_all()
                continue
            except Exception:  # those who wait must be answered; logged here, as nobody else would hear of it
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
        # What was noted of it may be from before the change.
        self.known.forget(server_id)
        for waiter in self._waiters.get(server_id, ()):
            if not waiter.done():
                waiter.set_result(None)


async def within(waiter: asyncio.Future[None], seconds: float) -> bool:
    """Whether a waiter was woken before so many seconds were over."""
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
