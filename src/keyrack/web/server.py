"""The whole service as one ASGI application, which passes each path to its API; must know no API's format."""

from __future__ import annotations

import asyncio
import hmac
import re
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache
from types import FrameType
from typing import Any

import prometheus_client
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from keyrack import __version__
from keyrack.core.hosts import contacts
from keyrack.core.hosts.last_seen import LastSeen
from keyrack.core.instance import Instance
from keyrack.core.people import throttle
from keyrack.errors import Kind, Refusal
from keyrack.logs import logger
from keyrack.store.database import DatabaseUnavailable
from keyrack.store.engine.connect import DatabaseAltered, DatabaseFull, DatabaseRefused, DatabaseUnusable
from keyrack.web import agent_api, forges, request_ids
from keyrack.web import openapi as description
from keyrack.web.access_log import Notes
from keyrack.web.api import ANSWER, Dialect, Sharing, address_of, application
from keyrack.web.codearts import api as codearts
from keyrack.web.codearts import api_v1
from keyrack.web.console import api as console
from keyrack.web.console.live import LIVE, Live
from keyrack.web.github import api as github
from keyrack.web.gitlab import api as gitlab
from keyrack.web.group_commits import GroupCommits
from keyrack.web.home import page
from keyrack.web.iam import api as iam
from keyrack.web.iam import discovery
from keyrack.web.native import api as native
from keyrack.web.protocol import WHOLE, Hold, WholeAnswer
from keyrack.web.proxies import Proxies
from keyrack.web.rate_limit import RateLimit
from keyrack.web.request_limits import client_network, with_rate_limit
from keyrack.web.runcloud import api as runcloud
from keyrack.web.slices import Slices
from keyrack.web.threads import Threads
from keyrack.web.waiting import ContactWaiters

log = logger("keyrack.web")

Handler = Callable[[Request], Awaitable[Response]]
Mounts = tuple[tuple[str, ASGIApp], ...]
Note = Callable[[Scope, str, int], None]

SLASHES = re.compile("//+")

READY_SECONDS = 5.0
"""How long the database may take before the service says that it is not ready."""

AGAIN = {"Retry-After": "5"}

# Where each dialect is mounted; also what /openapi.json and /docs describe.
APIS: tuple[tuple[str, Dialect], ...] = (
    ("/api/v3", runcloud.V3),
    ("/api/v2", runcloud.V2),
    ("/api/keyrack/v1", native.DIALECT),
    ("/v4", codearts.DIALECT),
    ("/v1", api_v1.V1),
    ("/v2", api_v1.V2),
    ("/v3", iam.V3),
    ("/v3.0", iam.V3_0),
    ("/v5", iam.V5),
    ("/api/v4", gitlab.DIALECT),
    ("/api/github", github.DIALECT),
    # GitHub Enterprise's base, which its clients add by themselves; nothing of RunCloud's is below these.
    ("/api/v3/user", github.OWN),
    ("/api/v3/users", github.OTHERS),
)


# The agency's prefix is another spelling of the first.
AGENCY = "/api/v3/agency"
DESCRIBED = (*APIS, (AGENCY, runcloud.V3))


class Service:
    """Sends a path to the API with the longest matching prefix, and gives every answer an X-Request-Id.

    No redirect ever leaves from here: programs written for the contracts read one as an empty success.
    """

    def __init__(
        self, mounts: Mounts, otherwise: ASGIApp, let_go: Callable[[], None], proxies: Proxies, slices: Slices
    ) -> None:
        self.let_go = let_go
        self.slices = slices
        self.note: Note | None = None
        self.hold: Hold | None = None
        """Takes requests that are held by their connection (protocol.py)."""
        self._proxies = proxies
        longest_first = sorted(mounts, key=lambda mount: -len(mount[0]))
        self._mounts = [(prefix, prefix + "/", app) for prefix, app in longest_first]
        self._otherwise = otherwise

    def is_agents(self, beginning: bytes) -> bool:
        """Whether what a connection brought begins as an agent's question does (listening.py)."""
        return beginning.startswith(agent_api.QUESTION)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._otherwise(scope, receive, send)
            return
        request_id = request_ids.fresh()
        # Each request runs in a context of its own, and its threads in copies of that.
        request_ids.current.set(request_id)
        scope.setdefault("state", {})["request_id"] = request_id
        self._proxies.set_client(scope)

        prefix, app, inner = self._entered(scope)
        answering = _Answering(self.note, scope, prefix, request_id, send)
        inner[ANSWER] = answering.whole
        try:
            await app(inner, receive, answering.send)
        except asyncio.CancelledError:
            # The server stops and this took too long: an answer, rather than a traceback for each request.
            if not answering.started:
                await PlainTextResponse("The service is stopping.", 503, AGAIN)(scope, receive, answering.send)
        finally:
            # Both refer back to the request: without this each request would leave a reference cycle.
            scope.pop(WHOLE, None)
            inner.pop(ANSWER, None)

    def _entered(self, scope: Scope) -> tuple[str, ASGIApp, Scope]:
        """The API that a path leads to: its prefix, its application, and the scope as that one sees it."""
        # A proxy takes %2F for no slash: its rules for /api/v3/ping would miss /api%2Fv3/ping, so no API gets that.
        hidden = b"%2f" in scope["raw_path"].lower()
        # Nor //api/v3/ping, as a base address with a slash at its end makes it; but that API is the one to say so.
        doubled = "//" in scope["path"]
        path = SLASHES.sub("/", scope["path"]) if doubled else scope["path"]
        for prefix, below, app in self._mounts:
            if path.startswith(below) or path == prefix:
                # A trailing slash is the same resource.
                resource = path.removesuffix("/")
                if hidden or doubled:
                    resource = prefix + "//"
                inner = {**scope, "path": prefix + "/" if resource == prefix else resource, "root_path": prefix}
                return prefix, app, inner
        return "/", self._otherwise, {**scope, "path": "//"} if hidden else scope


class _Answering:
    """Sends an answer: adds the request's id, and notes it in log and metrics."""

    __slots__ = ("_note", "_prefix", "_request_id", "_scope", "_send", "started")

    def __init__(self, note: Note | None, scope: Scope, prefix: str, request_id: str, send: Send) -> None:
        self._note, self._scope, self._prefix, self._request_id, self._send = note, scope, prefix, request_id, send
        self.started = False

    async def send(self, message: Message) -> None:
        """Send a message, as ASGI's send."""
        if message["type"] == "http.response.start":
            message["headers"] = self._begun(message["status"], message["headers"])
        await self._send(message)

    def whole(self, response: Response) -> bool:
        """Write an answer in one go; False where it must go by ASGI's messages."""
        written: WholeAnswer | None = self._scope.get(WHOLE)
        if written is None or response.status_code >= 400 or not written.can_be_written:
            return False
        written.write(
            response.status_code, self._begun(response.status_code, response.raw_headers), bytes(response.body)
        )
        return True

    def _begun(self, status: int, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        self.started = True
        if self._note is not None:
            self._note(self._scope, self._prefix, status)
        named = [*headers, (b"x-request-id", self._request_id.encode())]
        if status >= 400 and self._scope["method"] not in ("GET", "HEAD"):
            # Whatever follows a refused body on this connection may be a smuggled request.
            named.append((b"connection", b"close"))
        return named


def service(instance: Instance, on_start: Callable[[], Callable[[], None]], last_seen: LastSeen) -> Service:
    """The application to serve; on_start: starts background work and answers how to stop it.

    Its `let_go()`, called from any thread before the server stops, sends waiting agents and open pages away, so
    that stopping does not wait for them.
    """
    sharing = Sharing(GroupCommits(instance.database))
    waiting, live = ContactWaiters(sharing.slices), Live(instance)

    def let_go() -> None:
        waiting.let_go()
        live.let_go()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        waiting.start()
        live.start()
        _let_go_on_signals(let_go)
        stop_listening = instance.database.listen(waiting.wake)
        instance.database.prepare_nonblocking()
        stop = on_start()

        async def changed() -> frozenset[int]:
            return await run_in_threadpool(lambda: frozenset(contacts.changed(instance, waiting.known.all())))

        polls = [asyncio.create_task(waiting.poll(changed)), asyncio.create_task(live.poll())]
        try:
            yield {LIVE: live}
        finally:
            for task in polls:
                task.cancel()
            stop_listening()
            let_go()
            await run_in_threadpool(stop)

    limit = RateLimit(instance.settings.rate_limit)
    agents, held_contacts = agent_api.application(instance, waiting, last_seen, limit, sharing)
    dialects = ((prefix, with_rate_limit(dialect, limit)) for prefix, dialect in APIS)
    mounts: Mounts = (
        *((prefix, application(instance, dialect, sharing)) for prefix, dialect in dialects),
        (AGENCY, application(instance, with_rate_limit(runcloud.V3, limit), sharing)),
        (agent_api.PREFIX, agents),
    )
    pages = application(instance, with_rate_limit(console.dialect(instance), limit), sharing)
    root = Starlette(routes=_root_routes(instance, waiting, limit, pages), lifespan=lifespan)
    root.router.redirect_slashes = False
    root.router.default = _console_pages(pages, root.router.default)
    proxies = Proxies(instance.settings.proxy_networks, instance.settings.forwarded_header)
    service = Service(mounts, root, let_go, proxies, sharing.slices)
    note = service.note = Notes(instance).note
    held_contacts.note = lambda status: note({"path": agent_api.DOCUMENT}, agent_api.PREFIX, status)
    service.hold = held_contacts.hold
    return service


def _let_go_on_signals(let_go: Callable[[], None]) -> None:
    """Send waiting agents and open pages away on SIGTERM and SIGINT, before the server begins to wait for them."""
    if threading.current_thread() is not threading.main_thread():
        return  # whoever runs the server on a thread of its own calls let_go() itself
    for number in (signal.SIGTERM, signal.SIGINT):
        before = signal.getsignal(number)

        def handle(sig: int, frame: FrameType | None, before: Any = before) -> None:
            let_go()
            if callable(before):
                before(sig, frame)

        signal.signal(number, handle)


def _shown(error: DatabaseUnavailable) -> str:
    """Why, for whoever may ask: without the addresses and paths that the log has."""
    if isinstance(error, DatabaseUnusable):
        return "The database file is damaged or was replaced; the service must be restarted with the right one."
    if isinstance(error, DatabaseAltered):
        return str(error)
    if isinstance(error, DatabaseRefused):
        return "The database refuses this service."
    if isinstance(error, DatabaseFull):
        return "The database's disk is full: changes are taken again once there is room."
    return "The database does not answer."


async def _metrics(instance: Instance, request: Request) -> Response:
    token = instance.settings.metrics_token
    if not token:
        words = "Metrics are closed here. Set metrics_listen for an address of their own, or metrics_token."
        return PlainTextResponse(words, 404)
    sent = request.headers.get("authorization", "").removeprefix("Bearer ")

    def attempt() -> None:
        if not hmac.compare_digest(sent.encode("latin-1"), token.encode()):  # a header's bytes as they came
            words = "Metrics take metrics_token as bearer token."
            raise Refusal(Kind.UNAUTHENTICATED, "token-not-in-force", words)

    try:
        proof = instance.key.hash_token(sent)
        instance.throttle.prove(throttle.METRICS, address_of(request), proof, attempt)
    except Refusal as refusal:
        if refusal.kind is Kind.THROTTLED:
            return PlainTextResponse(refusal.message, 429, {"Retry-After": str(refusal.retry_after)})
        return PlainTextResponse(refusal.message, 401, {"WWW-Authenticate": "Bearer"})
    content = await run_in_threadpool(instance.figures.text)
    return PlainTextResponse(content, media_type=prometheus_client.CONTENT_TYPE_LATEST)


def _rate_limited(limit: RateLimit, handler: Handler) -> Handler:
    """The same for anybody, within the limit of requests of an address."""

    async def answer(request: Request) -> Response:
        quota = limit.take(client_network(request))
        if quota.wait:
            return PlainTextResponse("Too many requests.", 429, {"Retry-After": str(quota.wait)})
        return await handler(request)

    return answer


def _console_pages(pages: ASGIApp, otherwise: ASGIApp) -> ASGIApp:
    """What has no other route is a page of the console; a trailing slash is the same page."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await otherwise(scope, receive, send)
            return
        path = scope["path"]
        await pages({**scope, "path": path.rstrip("/") or path[:2]}, receive, send)

    return answer


class _FirstPage:
    """The first page: the console for people, a word of what there is for programs."""

    def __init__(self, pages: ASGIApp, otherwise: Handler) -> None:
        self._pages = pages
        self._otherwise = otherwise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if console.is_for_people(request):
            await self._pages(scope, receive, send)
            return
        response = await self._otherwise(request)
        await response(scope, receive, send)


def _pages(instance: Instance) -> list[tuple[str, Handler]]:
    """What people and programs read before they call; made once."""
    url = instance.settings.url

    first = page(url).encode()

    async def home(request: Request) -> Response:
        return discovery.versions(instance) if discovery.asks_for_versions(request) else HTMLResponse(first)

    @cache
    def described() -> tuple[bytes, bytes]:
        # The same for everybody who asks, and who asks need not prove anything.
        written = JSONResponse(description.openapi(DESCRIBED, url)).body
        return bytes(written), description.page(DESCRIBED).encode()

    async def docs(request: Request) -> Response:
        return HTMLResponse(described()[1])

    async def openapi(request: Request) -> Response:
        return Response(described()[0], media_type="application/json")

    return [("/", home), ("/docs", docs), ("/openapi.json", openapi)]


def _root_routes(instance: Instance, waiting: ContactWaiters, limit: RateLimit, pages: ASGIApp) -> list[Route]:
    asking = Threads(1, "keyrack-ready")

    async def alive(request: Request) -> Response:
        return JSONResponse({"status": "alive", "version": __version__})

    async def ready(request: Request) -> Response:
        # On a thread of its own: the others may all be waiting for the database.
        try:
            await asyncio.wait_for(asking.run(instance.database.check), READY_SECONDS)
        except Refusal as refusal:
            return JSONResponse(
                {"status": "unavailable", "reason": refusal.code, "detail": refusal.message}, 503, AGAIN
            )
        except DatabaseUnavailable as error:
            return JSONResponse({"status": "unavailable", "reason": "database", "detail": _shown(error)}, 503, AGAIN)
        except TimeoutError:
            words = f"The database did not answer within {READY_SECONDS:.0f} seconds."
            return JSONResponse({"status": "unavailable", "reason": "database", "detail": words}, 503, AGAIN)
        except Exception:  # whatever it is, it is not ready
            log.exception("The database answers with an error.")
            words = "The database answers with an error; the service's log has it."
            return JSONResponse({"status": "unavailable", "reason": "database", "detail": words}, 503, AGAIN)
        if waiting.closing:
            return JSONResponse({"status": "unavailable", "reason": "stopping"}, 503, AGAIN)
        return JSONResponse({"status": "ready"})

    async def metrics(request: Request) -> Response:
        return await _metrics(instance, request)

    async def keys_file(request: Request) -> Response:
        return await forges.keys_file(instance, request)

    (_, home), *others = _pages(instance)

    return [
        Route("/{name}.keys", _rate_limited(limit, keys_file)),
        Route("/", _FirstPage(pages, _rate_limited(limit, home)), methods=["GET"]),
        *(Route(path, _rate_limited(limit, handler)) for path, handler in others),
        Route("/healthz", alive),
        Route("/readyz", ready),
        Route("/metrics", metrics),
    ]
