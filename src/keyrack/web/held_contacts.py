"""Holds hosts' long polls while nothing is new, with a timer and a parsed head each and no task; must decide nothing
about a host, and answer no other request.

Thousands of hosts ask every half minute, and nearly always there is nothing new. So a long poll of an agent that was
known at its last request (waiting.py) skips what other requests go through. Polls that are woken are answered in
batches. All others are passed on as ordinary requests (agent_api.py).
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple

from keyrack.core.hosts import copies
from keyrack.core.hosts.contacts import Contact, ContactAnswer
from keyrack.core.hosts.last_seen import LastSeen
from keyrack.core.instance import Instance
from keyrack.core.people.throttle import network
from keyrack.web import request_ids
from keyrack.web.machines import MACHINE_HEADER, Machines
from keyrack.web.protocol import BoundedProtocol, HeldRequest
from keyrack.web.rate_limit import RateLimit
from keyrack.web.slices import Slices
from keyrack.web.waiting import ContactWaiters

ROUNDING_SECONDS = 0.05
"""Deadlines are rounded up to multiples of this, so that many polls end together: one by one, each would spend most of
its time on cache misses.
"""
WAS_HELD = "was_held"
"""The key in a request's state under which a poll that was held has its server's id and its deadline."""
# As agents write it (agent/service/follow.py); written in another way, it is an ordinary request.
_QUESTION = re.compile(
    rb"/agent/v1/document\?revision=([0-9]{1,10})(?:&lineage=([0-9a-f]{8}))?(?:&audit=([0-9]{1,10}))?&wait=([0-9]{1,3})"
)
_BEARER = b"Bearer "
_MACHINE = MACHINE_HEADER.encode()
_MORE = (b"transfer-encoding", b"expect", b"upgrade")
_JSON, _GZIP = (b"content-type", b"application/json"), (b"content-encoding", b"gzip")


@dataclass(frozen=True, slots=True)
class ContactParts:
    """What held polls share with ordinary requests. ask: reads a host's state and document in a batch; None where an
    ordinary request must answer. longest_wait: in seconds.
    """

    instance: Instance
    waiting: ContactWaiters
    machines: Machines
    last_seen: LastSeen
    limit: RateLimit
    ask: Callable[[Contact], Awaitable[ContactAnswer | None]]
    longest_wait: float
    slices: Slices


class QuestionHead(NamedTuple):
    """What the headers of a long poll say. secret: the bearer token; machine: the Keyrack-Machine header, if sent."""

    secret: str
    machine: str | None
    accepts_gzip: bool


class HeldContacts:
    """Takes the long polls that can be held; for use on the event loop only. note: called with each answer's status."""

    def __init__(self, parts: ContactParts) -> None:
        self._parts = parts
        self.note: Callable[[int], None] = lambda status: None

    def hold(self, connection: BoundedProtocol) -> HeldRequest | None:
        """Hold the request whose head a connection just received, until there is an answer or it is passed on as an
        ordinary request. None: it is not a long poll, and is to be handled as an ordinary request at once.
        """
        match = _QUESTION.fullmatch(connection.url)
        if match is None or self._parts.waiting.closing:
            return None
        head = _read(connection.headers)
        if head is None:
            return None
        return self._held(connection, match, head) or self._delayed(connection)

    def _delayed(self, connection: BoundedProtocol) -> DelayedContact:
        delayed = DelayedContact(connection)
        client = connection.client
        self._parts.slices.begin(network(client[0] if client else ""), delayed.go_on)
        return delayed

    def _held(self, connection: BoundedProtocol, match: re.Match[bytes], head: QuestionHead) -> HeldContact | None:
        identity = None if head.machine is None else copies.read(head.machine)
        run = "" if identity is None else identity.run
        revision, lineage, audit, wait = match.groups(b"")
        secret_hash = self._parts.instance.key.hash_token(head.secret)
        mark = lineage.decode()
        known = self._parts.waiting.known
        server_id = known.server_of(secret_hash, int(revision), mark, run)
        is_current = server_id is not None
        if server_id is None:
            server_id = known.server_of_secret(secret_hash, run)
        seconds = min(float(wait), self._parts.longest_wait)
        if server_id is None or not seconds or self._parts.limit.take(("host", server_id)).wait:
            return None
        if self._parts.machines.refuse_repeated(server_id, identity) is not None:
            return None  # the ordinary request finds that again, and answers it
        contact = Contact(
            server_id, secret_hash, int(revision), mark, head.accepts_gzip, run, int(audit) if audit else -1
        )
        held = HeldContact(self._parts, self.note, connection, contact, seconds)
        if not is_current:
            held.ask()
        return held


def _read(headers: list[tuple[bytes, bytes]]) -> QuestionHead | None:
    """What the headers of a long poll say; None for those that make it an ordinary request."""
    secret, machine, accepts_gzip = b"", None, False
    for name, value in headers:
        if name == b"authorization":
            if secret or not value.startswith(_BEARER):
                return None
            secret = value[len(_BEARER) :]
        elif name == _MACHINE:
            machine = value.decode("latin-1")
        elif name == b"accept-encoding":
            accepts_gzip = b"gzip" in value
        elif name in _MORE or (name == b"content-length" and value != b"0"):
            return None
    return QuestionHead(secret.decode("latin-1"), machine, accepts_gzip) if secret else None


class DelayedContact:
    """A poll that becomes an ordinary request when it is its turn. Until then only its parsed head is in memory, as a
    thousand hosts may ask at once.
    """

    __slots__ = ("_connection",)

    def __init__(self, connection: BoundedProtocol) -> None:
        self._connection: BoundedProtocol | None = connection

    def drop(self) -> None:
        """The connection was lost, or is to be closed."""
        self._connection = None

    def go_on(self) -> None:
        """Called when it is its turn."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.go_on({})


class HeldContact:
    """A long poll that is held."""

    __slots__ = ("_asking", "_connection", "_contact", "_deadline", "_loop", "_note", "_parts", "_timer", "_waiter")

    def __init__(
        self,
        parts: ContactParts,
        note: Callable[[int], None],
        connection: BoundedProtocol,
        contact: Contact,
        seconds: float,
    ) -> None:
        self._parts, self._note, self._contact = parts, note, contact
        self._connection: BoundedProtocol | None = connection
        self._loop = connection.loop  # get_running_loop() takes a system call
        self._deadline = math.ceil((self._loop.time() + seconds) / ROUNDING_SECONDS) * ROUNDING_SECONDS
        self._timer = self._loop.call_at(self._deadline, self._over)
        self._waiter: asyncio.Future[None] | None = None
        self._asking = 0
        parts.last_seen.saw(contact.server_id)
        parts.instance.figures.waiting.inc()
        parts.machines.begin_waiting(contact.server_id, self)
        self._listen()

    @property
    def server_id(self) -> int:
        """The id of the server whose host asks."""
        return self._contact.server_id

    async def is_disconnected(self) -> bool:
        """Whether the connection is closed (machines.Asking)."""
        return self._connection is None or self._connection.finished

    def drop(self) -> None:
        """The connection was lost, or is to be closed."""
        self._end()

    def _listen(self) -> None:
        self._stop_listening()
        self._waiter = self._parts.waiting.listen(self._contact.server_id)
        self._waiter.add_done_callback(self._woken)

    def _stop_listening(self) -> None:
        if self._waiter is not None:
            self._waiter.remove_done_callback(self._woken)
            self._parts.waiting.leave(self._contact.server_id, self._waiter)
            self._waiter = None

    def _end(self) -> BoundedProtocol | None:
        """Stop holding it; returns the connection to be answered, None if it was ended before."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._timer.cancel()
            self._stop_listening()
            self._parts.instance.figures.waiting.dec()
            self._parts.machines.end_waiting(self._contact.server_id, self)
        return connection

    def _over(self) -> None:
        self._answer(204, ())

    def _answer(self, status: int, headers: tuple[tuple[bytes, bytes], ...], body: bytes = b"") -> None:
        if (connection := self._end()) is not None:
            self._note(status)
            named = (b"x-request-id", request_ids.fresh().encode())
            connection.answer_held(status, (*headers, named), body)

    def _go_on(self) -> None:
        if (connection := self._end()) is not None:
            connection.go_on({WAS_HELD: (self._contact.server_id, self._deadline)})

    def _woken(self, waiter: asyncio.Future[None]) -> None:
        if self._connection is None:
            return
        if self._parts.waiting.closing:
            self._over()
            return
        # Before reading the state, so that a change announced meanwhile is not missed.
        self._listen()
        self.ask()

    def ask(self) -> None:
        """Read the host's state, and answer if there is something new for it."""
        if self._connection is not None:
            self._connection.keep(self._loop.create_task(self._ask()))

    async def _ask(self) -> None:
        waiter, contact, known = self._waiter, self._contact, self._parts.waiting.known
        self._asking += 1
        try:
            is_held = self._parts.machines.is_held(contact.server_id, contact.run)
            answer = None if is_held else await self._parts.ask(contact)
        except Exception:  # the ordinary request finds that again, and logs it
            answer = None
        finally:
            self._asking -= 1
        is_newest = self._waiter is waiter and waiter is not None and not waiter.done()
        if answer is None or answer.state is None:
            self._go_on()
            return
        self._parts.last_seen.saw(contact.server_id)
        if not answer.body:
            if is_newest:  # else another question is under way
                known.note(contact, answer.state)
            return
        if is_newest:
            known.note_run(contact, answer.state)
        self._answer(200, (_JSON, _GZIP) if answer.gzipped else (_JSON,), answer.body)
