"""Finds out that two machines use one host's secret; core/hosts/copies.py decides what follows.

A process remembers the last request number of each run of an agent. It also delays the document of a new run for a few
seconds: the run before it is woken, and if it asks again there are two machines.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from keyrack.core.hosts import copies
from keyrack.core.hosts.copies import AgentRun, ReportedIdentity
from keyrack.core.instance import Instance
from keyrack.model import Server
from keyrack.web.api import address_of
from keyrack.web.callers import Caller
from keyrack.web.fair_queueing import FairScheduler
from keyrack.web.waiting import ContactWaiters, within

MACHINE_HEADER = "keyrack-machine"
HOLD_SECONDS = 3.0
"""How long a new run waits for its document if the run before it asked a moment ago."""
MAX_NUMBERS = 200_000


class Asking(Protocol):
    """A request that waits for an answer."""

    async def is_disconnected(self) -> bool:
        """Whether its connection is closed."""


class Machines:
    """What one process knows of the runs of agents; for use on the event loop only."""

    def __init__(self, instance: Instance, waiting: ContactWaiters, scheduler: FairScheduler) -> None:
        self._instance = instance
        self._waiting = waiting
        self._scheduler = scheduler
        self._numbers: dict[tuple[int, str], tuple[str, int]] = {}
        self._open: dict[int, list[Asking]] = {}
        self._held: dict[int, tuple[str, float]] = {}

    @contextmanager
    def waiting(self, server_id: int, request: Request) -> Iterator[None]:
        """Count a request as waiting within the block."""
        self.begin_waiting(server_id, request)
        try:
            yield
        finally:
            self.end_waiting(server_id, request)

    def begin_waiting(self, server_id: int, question: Asking) -> None:
        """Count a request as waiting from now on, until `end_waiting`."""
        self._open.setdefault(server_id, []).append(question)

    def end_waiting(self, server_id: int, question: Asking) -> None:
        """Count a request as waiting no longer."""
        waiting = self._open[server_id]
        waiting.remove(question)
        if not waiting:
            del self._open[server_id]

    def refuse_repeated(self, server_id: int, identity: ReportedIdentity | None) -> Response | None:
        """The answer (409) to a request whose number was used before, None for any other. The machine was copied while
        it ran, or set back to a snapshot; its agent must begin a new run, so that the two can be told apart.
        """
        if identity is None:
            return None
        place = server_id, identity.lane
        run, number = self._numbers.get(place, ("", 0))
        if run == identity.run and identity.number <= number:
            words = "Another machine asked as this run of the agent. Begin another run."
            return JSONResponse({"error": words, "tell": "run"}, 409)
        if len(self._numbers) >= MAX_NUMBERS:
            self._numbers.clear()
        self._numbers[place] = identity.run, identity.number
        return None

    async def note_run(
        self, request: Request, server: Server, identity: ReportedIdentity | None, caller: Caller
    ) -> None:
        """Note the sender's run if it changed. Raises Refusal TAKEN or UNAVAILABLE (copies.contact)."""
        if server.copied_at is None and (identity is None or identity.run == server.agent_run):
            return
        await self.note_new_run(request, server.id, identity, caller)

    async def note_new_run(
        self, request: Request, server_id: int, identity: ReportedIdentity | None, caller: Caller
    ) -> None:
        """The same without comparing it with the server's last run."""
        arrived = self._instance.now()
        others = [request for request in self._open.get(server_id, ()) if not await request.is_disconnected()]
        note = partial(
            copies.contact, self._instance, server_id, identity, address=address_of(request), arrived=arrived
        )
        run = await self._scheduler.run(caller, note)
        if run is AgentRun.NEW_WHILE_SEEN or (run is AgentRun.NEW and others):
            self._held[server_id] = identity.run if identity else "", asyncio.get_running_loop().time() + HOLD_SECONDS

    def is_held(self, server_id: int, run: str) -> bool:
        """Whether a run must wait, so that the run before it has time to ask again."""
        return server_id in self._held and self._held[server_id][0] == run

    async def hold(self, server_id: int, run: str, caller: Caller) -> None:
        """Delay a new run until the run before it asks again, for HOLD_SECONDS at most."""
        if not self.is_held(server_id, run):
            return
        _, until = self._held[server_id]
        loop = asyncio.get_running_loop()
        is_last_run = partial(copies.is_last_run, self._instance, server_id, run)
        while loop.time() < until and not self._waiting.closing:
            waiter = self._waiting.listen(server_id)
            try:
                if not await self._scheduler.run(caller, is_last_run):
                    break
                await within(waiter, until - loop.time())
            finally:
                self._waiting.leave(server_id, waiter)
        self._held.pop(server_id, None)


def identity_of(request: Request) -> ReportedIdentity | None:
    """The machine and run that a request's Keyrack-Machine header names; None without that header."""
    header = request.headers.get(MACHINE_HEADER)
    return None if header is None else copies.read(header)
