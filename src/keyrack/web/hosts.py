"""What agents call: enrol, wait for the document, report; must hold thousands of waiting hosts cheaply."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import structlog
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from keyrack.core import documents, hosts, went_back
from keyrack.core.instance import Instance
from keyrack.core.presence import Presence
from keyrack.core.went_back import Contact
from keyrack.errors import Kind, Refusal
from keyrack.ssh import host_document
from keyrack.store.database import DatabaseUnavailable
from keyrack.web import bodies
from keyrack.web.agent_archive import build_zipapp
from keyrack.web.dialect import address_of, database_away, fault
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


def application(instance: Instance, waiting: Waiting, presence: Presence, limit: RateLimit) -> Starlette:
    """The application under /agent."""
    archive: list[bytes] = []
    limits = _Limits()

    async def enrol(request: Request) -> Response:
        count(limit, request, ("address", address_of(request)))
        told = await _object(instance, request)
        enrolled = await run_in_threadpool(hosts.enrol, instance, told.get("token"), told, address=address_of(request))
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

    async def document(request: Request) -> Response:
        return await _document(instance, waiting, presence, request, limit)

    async def report(request: Request) -> Response:
        server = await run_in_threadpool(hosts.authenticate, instance, _secret(request), address=address_of(request))
        told = await limits.read(instance, request, server.id)
        await run_in_threadpool(hosts.report, instance, server, told)
        return JSONResponse({"ok": True})

    async def last_document(request: Request) -> Response:
        server = await run_in_threadpool(hosts.authenticate, instance, _secret(request), address=address_of(request))
        told = await _object(instance, request)
        await run_in_threadpool(went_back.hear, instance, server, told)
        return JSONResponse({"ok": True})

    async def zipapp(request: Request) -> Response:
        if not archive:
            archive.append(await run_in_threadpool(build_zipapp))
        return Response(archive[0], media_type="application/octet-stream")

    routes = [
        Route("/v1/enroll", _answering(enrol), methods=["POST"]),
        Route("/v1/document", _answering(document), methods=["GET"]),
        Route("/v1/report", _answering(report), methods=["POST"]),
        Route("/v1/last-document", _answering(last_document), methods=["POST"]),
        Route("/keyrack-agent.pyz", zipapp, methods=["GET"]),
        Route("/install.sh", _script, methods=["GET"]),
    ]
    app = Starlette(routes=routes, exception_handlers={404: _no_call, 405: _no_call})
    app.router.redirect_slashes = False
    return app


async def _no_call(request: Request, error: Exception) -> Response:
    """404 and 405 in the one shape that agents read."""
    assert isinstance(error, HTTPException)
    words = "There is no such path." if error.status_code == 404 else "This path takes another method."
    return JSONResponse({"error": words}, error.status_code, headers=error.headers)


async def _script(request: Request) -> Response:
    return Response(INSTALL_SCRIPT.read_bytes(), media_type="text/x-shellscript")


async def _document(
    instance: Instance, waiting: Waiting, presence: Presence, request: Request, limit: RateLimit
) -> Response:
    """The document, once it is another one than the host has; 204 when it is not in time."""
    server = await run_in_threadpool(hosts.authenticate, instance, _secret(request), address=address_of(request))
    count(limit, request, ("host", server.id))
    asked = bodies.query(request)
    known = bodies.number(asked.get("revision", "0")) or 0
    lineage = asked.get("lineage", "")
    seconds = min(_seconds(asked.get("wait", "0")), LONGEST_WAIT)
    with waiting.listening(server.id) as announced, instance.figures.waiting.track_inprogress():

        async def look() -> Contact:
            return await run_in_threadpool(went_back.contact, instance, server.id, known, lineage)

        standing = await _news(look, waiting, announced, seconds, lambda: presence.heard(server.id))
    if standing is Contact.CURRENT:
        return Response(status_code=204)
    presence.heard(server.id)
    if standing is Contact.ASTRAY:
        await run_in_threadpool(went_back.notice, instance, server.id, known)
        words = "This host obeys what the service does not know: its database went back. Tell your last document."
        return JSONResponse({"error": words, "tell": "document"}, 409)
    signed = await run_in_threadpool(documents.signed, instance, server.id)
    if signed is None:
        raise Refusal(Kind.MISSING, "server-deleted", "This server was deleted.")
    return JSONResponse({"document": signed.text, "signature": signed.signature})


async def _news(
    look: Callable[[], Awaitable[Contact]],
    waiting: Waiting,
    announced: asyncio.Event,
    seconds: float,
    heard: Callable[[], None],
) -> Contact:
    """How a host stands as soon as it must be told something, or CURRENT when the time is over."""
    deadline = asyncio.get_running_loop().time() + seconds
    standing = Contact.CURRENT
    # A service that stops asks nothing more: with thousands of hosts that would keep its end waiting.
    while waiting.closing or (standing := await look()) is Contact.CURRENT:
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


async def _object(instance: Instance, request: Request, at_least: int = 0) -> Mapping[str, Any]:
    bodies.check_encoding(request)
    content = await bodies.read(request, max(instance.settings.max_body_bytes, at_least))
    # What stands in files on a host need not be text; a report of it counts all the same.
    return bodies.json_object(content, mended=True)


class _Limits:
    """How often each host may report; each process counts for itself."""

    def __init__(self) -> None:
        self._reports, self._lists = RateLimit(MOST_REPORTS), RateLimit(MOST_LISTS)

    async def read(self, instance: Instance, request: Request, server_id: int) -> Mapping[str, Any]:
        """A report's body. Raises Refusal THROTTLED when it is one too many."""
        self._count(self._reports, server_id)
        told = await _object(instance, request, LARGEST_REPORT)
        if "keys_found" in told:
            self._count(self._lists, server_id)
        return told

    def _count(self, limit: RateLimit, server_id: int) -> None:
        quota = limit.take(server_id)
        if quota.wait:
            words = f"This host reports more than {limit.limit} times a minute. Report again in {quota.wait} seconds."
            raise Refusal(Kind.THROTTLED, "too-many-reports", words, retry_after=quota.wait)


def _secret(request: Request) -> str:
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    return secret if scheme.lower() == "bearer" else ""


def _seconds(text: str) -> float:
    value = bodies.number(text)
    return float(value or 0)
