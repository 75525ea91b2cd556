"""What agents call: enrol, wait for the document, report; must hold thousands of waiting hosts cheaply."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from keyrack.core.hosts import documents, enrolment, went_back
from keyrack.core.hosts.last_seen import LastSeen
from keyrack.core.hosts.went_back import HostRevision
from keyrack.core.instance import Instance
from keyrack.errors import Kind, Refusal
from keyrack.model import Server
from keyrack.protocol import host_document
from keyrack.store.database import DatabaseUnavailable
from keyrack.store.deleted_servers import DeletedServer
from keyrack.web import bodies
from keyrack.web.agent_archive import build_zipapp
from keyrack.web.api import LONGEST_OPEN_BODY, Sharing, address_of, database_away, fault
from keyrack.web.callers import Caller
from keyrack.web.fair_queueing import LONG_BODY
from keyrack.web.limits import count
from keyrack.web.rate_limit import RateLimit

log = structlog.get_logger("keyrack.web")

INSTALL_SCRIPT = Path(__file__).with_name("install.sh")
LONGEST_WAIT = 50.0
# How often a waiting host's revision is looked up all the same. Each process looks for the changes of others by
# itself, once for all its hosts, so this is for what nobody thought of.
LOOK_AGAIN = 30.0
# A host reports each revision that it obeys, and a list of keys when it changed since its last look, half a minute
# before: no host that is well comes near these, a minute.
MOST_REPORTS = 1200
MOST_LISTS = 30
# What the long ones of a host may have together, a minute: a full list of keys is some 700 kB, and comes with all that
# changes in it; who is logged in is told every five seconds at most.
MOST_BYTES = 4_000_000
# A host's report is taken up to this size, however short bodies from elsewhere must be. Agents send less at once.
LARGEST_REPORT = 2_000_000

STATUS = {
    Kind.UNAUTHENTICATED: 401,
    Kind.FORBIDDEN: 403,
    Kind.MISSING: 410,
    Kind.INVALID: 400,
    Kind.TOO_LARGE: 413,
    Kind.THROTTLED: 429,
    Kind.UNAVAILABLE: 503,
    Kind.FAULT: 500,
}


class Waiting:
    """Who waits for which server, woken from any thread after a commit."""

    def __init__(self) -> None:
        self._events: dict[int, set[asyncio.Event]] = {}
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
        """Send everybody away, so that a stopping service does not wait for its hosts; from any thread."""
        self._closing = True
        self.wake(frozenset(self._events))

    @contextmanager
    def listening(self, server_id: int) -> Iterator[asyncio.Event]:
        """An event that is set whenever the server is announced, until the block ends.

        Enter it before looking at the revision: what is announced between the look and the wait is kept.
        """
        event = asyncio.Event()
        self._events.setdefault(server_id, set()).add(event)
        try:
            yield event
        finally:
            waiters = self._events[server_id]
            waiters.discard(event)
            if not waiters:
                del self._events[server_id]

    @property
    def closing(self) -> bool:
        """Whether the service is stopping."""
        return self._closing

    def _set(self, server_ids: frozenset[int]) -> None:
        for server_id in server_ids:
            for event in self._events.get(server_id, ()):
                event.set()


def application(
    instance: Instance, waiting: Waiting, last_seen: LastSeen, limit: RateLimit, sharing: Sharing
) -> Starlette:
    """The application under /agent."""
    calls = _AgentCalls(instance, waiting, last_seen, limit, sharing)
    archive: list[bytes] = []

    async def zipapp(request: Request) -> Response:
        count(limit, request, ("address", address_of(request)))
        if not archive:
            archive.append(await run_in_threadpool(build_zipapp))
        return Response(archive[0], media_type="application/octet-stream")

    async def script(request: Request) -> Response:
        count(limit, request, ("address", address_of(request)))
        return Response(INSTALL_SCRIPT.read_bytes(), media_type="text/x-shellscript")

    routes = [
        Route("/v1/enroll", _answering(calls.enrol), methods=["POST"]),
        Route("/v1/document", _answering(calls.document), methods=["GET"]),
        Route("/v1/report", _answering(calls.report), methods=["POST"]),
        Route("/v1/last-document", _answering(calls.last_document), methods=["POST"]),
        Route("/keyrack-agent.pyz", _answering(zipapp), methods=["GET"]),
        Route("/install.sh", _answering(script), methods=["GET"]),
    ]
    app = Starlette(routes=routes, exception_handlers={404: _no_call, 405: _no_call})
    app.router.redirect_slashes = False
    return app


async def _no_call(request: Request, error: Exception) -> Response:
    """404 and 405 in the one shape that agents read."""
    assert isinstance(error, HTTPException)
    words = "There is no such path." if error.status_code == 404 else "This path takes another method."
    return JSONResponse({"error": words}, error.status_code, headers=error.headers)


class _AgentCalls:
    """The calls of agents; whatever takes more than a moment runs on a thread, when it is that host's turn."""

    def __init__(
        self, instance: Instance, waiting: Waiting, last_seen: LastSeen, limit: RateLimit, sharing: Sharing
    ) -> None:
        self._instance = instance
        self._waiting = waiting
        self._last_seen = last_seen
        self._limit = limit
        self._callers, self._scheduler = sharing.callers, sharing.scheduler
        self._limits = _Limits()

    async def enrol(self, request: Request) -> Response:
        """Make a host the one that a one-time token was made for."""
        address = address_of(request)
        count(self._limit, request, ("address", address))
        bodies.check_encoding(request)
        content = await bodies.read(request, LONGEST_OPEN_BODY)

        def call() -> enrolment.Enrolled:
            told = _object(content)
            return enrolment.enrol(self._instance, told.get("token"), told, address=address)

        enrolled = await self._scheduler.run(self._callers.of(request), call)
        return JSONResponse(
            {
                "host": enrolled.server.host,
                "server_id": enrolled.server.id,
                "server_name": enrolled.server.name,
                "secret": enrolled.secret,
                "signing_key": enrolled.signing_key,
                "principal": host_document.PRINCIPAL,
            }
        )

    async def document(self, request: Request) -> Response:
        """The document, once it is another one than the host has; 204 when it is not in time."""
        server, caller = await self._host(request)
        count(self._limit, request, ("host", server.id))
        asked = bodies.query(request)
        known = bodies.number(asked.get("revision", "0")) or 0
        lineage = asked.get("lineage", "")
        seconds = min(_seconds(asked.get("wait", "0")), LONGEST_WAIT)
        instance = self._instance

        async def look() -> HostRevision:
            return await self._scheduler.run(caller, partial(went_back.contact, instance, server.id, known, lineage))

        def heard() -> None:
            self._last_seen.saw(server.id)

        with self._waiting.listening(server.id) as announced, instance.figures.waiting.track_inprogress():
            standing = await _news(look, self._waiting, announced, seconds, heard)
        if standing is HostRevision.CURRENT:
            return Response(status_code=204)
        heard()
        if standing is HostRevision.ASTRAY:
            await self._scheduler.run(caller, partial(went_back.notice, instance, server.id, known))
            words = "This host obeys what the service does not know: its database went back. Tell your last document."
            return JSONResponse({"error": words, "tell": "document"}, 409)
        signed = await self._scheduler.run(caller, partial(documents.signed, instance, server.id))
        if signed is None:
            raise Refusal(Kind.MISSING, "server-deleted", "This server was deleted.")
        return JSONResponse({"document": signed.text, "signature": signed.signature})

    async def report(self, request: Request) -> Response:
        """What a host says of itself."""
        server, caller = await self._host(request)
        content = await self._told(request, server.id, caller)

        def call() -> None:
            told = _object(content)
            self._limits.check(server.id, told)
            enrolment.report(self._instance, server, told)

        await self._scheduler.run(caller, call, long=len(content) >= LONG_BODY)
        return JSONResponse({"ok": True})

    async def last_document(self, request: Request) -> Response:
        """A piece of what a host obeys, which the service does not know any more."""
        server, caller = await self._host(request)
        count(self._limit, request, ("host", server.id))
        bodies.check_encoding(request)
        async with self._scheduler.reading(caller, long=bodies.may_be(request, LONG_BODY)):
            content = await bodies.read(request, self._instance.settings.max_body_bytes)

        def call() -> None:
            went_back.hear(self._instance, server, _object(content))

        await self._scheduler.run(caller, call, long=len(content) >= LONG_BODY)
        return JSONResponse({"ok": True})

    async def _host(self, request: Request) -> tuple[Server | DeletedServer, Caller]:
        """The server whose agent calls, and whose turn that is. Raises Refusal UNAUTHENTICATED."""
        check = partial(enrolment.authenticate, self._instance, _secret(request), address=address_of(request))
        try:
            server = await self._scheduler.run(self._callers.of(request), check)
        except Refusal as refusal:
            if refusal.kind is Kind.UNAUTHENTICATED:
                self._callers.failed(request)
            raise
        self._callers.held(request, ("host", server.id))
        return server, Caller(("host", server.id), known=True, at_home=True)

    async def _told(self, request: Request, server_id: int, caller: Caller) -> bytes:
        """A report's body. Raises Refusal THROTTLED before it is read, where the host says how long it is."""
        bodies.check_encoding(request)
        longest = max(self._instance.settings.max_body_bytes, LARGEST_REPORT)
        bodies.check_length(request, longest)
        announced = bodies.announced(request)
        self._limits.count(server_id, announced or 0)
        async with self._scheduler.reading(caller, long=bodies.may_be(request, LONG_BODY)):
            content = await bodies.read(request, longest)
        if announced is None:
            self._limits.weigh(server_id, len(content))
        return content


async def _news(
    look: Callable[[], Awaitable[HostRevision]],
    waiting: Waiting,
    announced: asyncio.Event,
    seconds: float,
    heard: Callable[[], None],
) -> HostRevision:
    """How a host stands as soon as it must be told something, or CURRENT when the time is over."""
    deadline = asyncio.get_running_loop().time() + seconds
    standing = HostRevision.CURRENT
    # A service that stops asks nothing more: with thousands of hosts that would keep its end waiting.
    while waiting.closing or (standing := await look()) is HostRevision.CURRENT:
        heard()
        left = deadline - asyncio.get_running_loop().time()
        if left <= 0 or waiting.closing:
            break
        with suppress(TimeoutError):
            await asyncio.wait_for(announced.wait(), min(left, LOOK_AGAIN))
        announced.clear()
    return standing


def _answering(
    handler: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except Refusal as refusal:
            return _refuse(refusal)
        except DatabaseUnavailable:
            return _refuse(database_away())
        except Exception:
            log.exception("request failed", method=request.method, path=request.url.path)
            return _refuse(fault())

    return answer


def _refuse(refusal: Refusal) -> Response:
    return bodies.retried(JSONResponse({"error": refusal.message}, STATUS.get(refusal.kind, 400)), refusal)


def _object(content: bytes) -> Mapping[str, Any]:
    # What stands in files on a host need not be text; a report of it counts all the same.
    return bodies.json_object(content, mended=True)


class _Limits:
    """How often and how much each host may report; each process counts for itself. From any thread."""

    def __init__(self) -> None:
        self._reports, self._lists = RateLimit(MOST_REPORTS), RateLimit(MOST_LISTS)
        self._bytes = RateLimit(MOST_BYTES)

    def count(self, server_id: int, size: int) -> None:
        """Count a report of so many bytes. Raises Refusal THROTTLED when it is one too many, or too long for now."""
        self._take(self._reports, server_id, 1, f"reports more than {self._reports.limit} times a minute")
        self.weigh(server_id, size)

    def weigh(self, server_id: int, size: int) -> None:
        """Count the bytes of a report that is no short one: receipts are taken, however much else was told."""
        if size >= LONG_BODY:
            self._take(self._bytes, server_id, size, f"reports more than {self._bytes.limit} bytes a minute")

    def check(self, server_id: int, told: Mapping[str, Any]) -> None:
        """Count what a report tells. Raises Refusal THROTTLED."""
        if "keys_found" in told:
            self._take(self._lists, server_id, 1, f"lists its keys more than {self._lists.limit} times a minute")

    def _take(self, limit: RateLimit, server_id: int, cost: int, what: str) -> None:
        quota = limit.take(server_id, cost)
        if quota.wait:
            words = f"This host {what}. Report again in {quota.wait} seconds."
            raise Refusal(Kind.THROTTLED, "too-many-reports", words, retry_after=quota.wait)


def _secret(request: Request) -> str:
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    return secret if scheme.lower() == "bearer" else ""


def _seconds(text: str) -> float:
    value = bodies.number(text)
    return float(value or 0)
