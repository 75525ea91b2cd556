"""The frame of every dialect: routes, requests as records, answers to refusals; must know no dialect."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from time import monotonic
from typing import Any

from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from keyrack.core.instance import Instance
from keyrack.errors import Kind, Refusal
from keyrack.logs import logger
from keyrack.model import Actor
from keyrack.store.database import Commits, DatabaseUnavailable, TooSlow, WouldBlock, commits
from keyrack.store.engine.connect import DatabaseFull, TablesChanged
from keyrack.web import access_log, bodies
from keyrack.web.callers import Caller, Callers, is_signed
from keyrack.web.fair_queueing import LONG_BODY, FairScheduler
from keyrack.web.group_commits import GroupCommits
from keyrack.web.paths import Paths
from keyrack.web.shapes import Description
from keyrack.web.slices import Slices

ANSWER = "keyrack.answer"
"""Where a request's scope has what writes an answer in one go, if that can be done: see web/server.py."""
AWAY_SECONDS = 2
SLOW_SECONDS = 1.0
"""After a call that the event loop could not answer in time: how long the caller's calls of this path go to threads."""
MAX_SLOW = 10_000
LONGEST_OPEN_BODY = 65_536
"""The longest body, in bytes, of a call that asks for no proof, as anybody may send it."""

ORDINARY_STATUS = {
    Kind.UNAUTHENTICATED: 401,
    Kind.FORBIDDEN: 403,
    Kind.MISSING: 404,
    Kind.CHANGED: 412,
    Kind.TOO_LARGE: 413,
    Kind.THROTTLED: 429,
    Kind.FAULT: 500,
    Kind.UNAVAILABLE: 503,
}
"""The status of each kind of refusal on which contracts agree; each adds those of INVALID, TAKEN and LIMIT."""

log = logger("keyrack.web")


@dataclass(frozen=True, slots=True)
class Call:
    """One request as a handler sees it.

    ids: each name in the path as a number, 0 where it is none; path: each as text; query: its parameters; one that is
    sent twice is refused when it is read;
    body: the fields that were sent, {} without a body; strings: whether the body's values arrived as text
    (a form), so that booleans are words; unread: what is wrong with a body that could not be read, see Dialect.
    """

    instance: Instance
    actor: Actor
    request: Request
    ids: Mapping[str, int]
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Mapping[str, Any]
    strings: bool = False
    unread: Refusal | None = None


Handler = Callable[[Call], Response]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One call of a contract: method, path with {names}, and the function that answers it.

    action: the name in policy.ACTIONS that the core will ask for, in APIs whose frame or tests need to know it; "" in
    the others. The core alone decides. open: no authentication is asked. hashes: it may hash a password,
    which takes long. on_event_loop: it reads one thing or one page, or makes one short change, and does little else, so
    that it may run on the event loop itself (see Database.nonblocking); all other handlers run on a worker thread and
    may block on the database. takes, asks, answers: the models of body, query and answer and the answer's status, where
    the API has models: for the description; the API's own frame checks them.
    """

    method: str
    path: str
    handler: Handler
    action: str = ""
    open: bool = False
    hashes: bool = False
    on_event_loop: bool = False
    takes: type[BaseModel] | None = None
    asks: type[BaseModel] | None = None
    answers: type[BaseModel] | None = None
    status: int = 0


@dataclass(frozen=True)
class Dialect:
    """One contract: its routes and how it says no.

    authenticate: the actor of a request, or raises Refusal UNAUTHENTICATED. read_body: the fields of a
    body. refuse: the answer to a refusal. unknown_path: the answer where there is no route. not_supported:
    the answer to a method a path lacks; it gets the methods that the path has. finish: called with
    every answer, to set headers. greet: called before a call that asks no authentication; raises Refusal.
    meet: notes who asks, on a thread, where a body was too long before anybody was asked, and waits_unknown.
    waits_unknown: whether unknown_path asks the database for this request, and so runs on a thread. shows_quota: its
    answers say how many requests may still be sent; shows_reset: and when all may be sent again. repeats: its
    queries may name a parameter twice, and the last counts. described: how it is shown in /openapi.json, None for
    what is no API for programs. says_unread: its handlers say what is wrong with a body that could not be read, once
    they know that the caller may call at all; else that is said before. error: the model of a refusal, where the API
    has models.
    """

    name: str
    endpoints: tuple[Endpoint, ...]
    authenticate: Callable[[Instance, Request], Actor]
    refuse: Callable[[Request, Refusal], Response]
    unknown_path: Callable[[Request], Response]
    not_supported: Callable[[Request, tuple[str, ...]], Response]
    read_body: Callable[[Request, bytes], tuple[Mapping[str, Any], bool]]
    finish: Callable[[Request, Actor | None, Response], None] = field(default=lambda request, actor, response: None)
    greet: Callable[[Request], None] = field(default=lambda request: None)
    waits_unknown: Callable[[Request], bool] = field(default=lambda request: False)
    meet: Callable[[Request], None] = field(default=lambda request: None)
    shows_quota: bool = False
    shows_reset: bool = False
    repeats: bool = False
    described: Description | None = None
    says_unread: bool = False
    error: type[BaseModel] | None = None


def strangers(channel: str, address: str) -> Actor:
    """The actor of calls that ask for no authentication."""
    return Actor(workspace_id=0, user_id=None, name="", role=None, address=address, channel=channel)


def address_of(request: Request) -> str:
    """Where a request comes from: the client, or what a trusted proxy says of it (web/proxies.py)."""
    client = request.scope.get("client")
    return str(client[0]) if client else ""


def is_shared(request: Request) -> bool:
    """Whether the address is a proxy's that is not trusted to name the client, so that many may have it."""
    return bool(request.scope.get("state", {}).get("shared_address"))


def database_away(*, perhaps_changed: bool = False) -> Refusal:
    """The refusal while the database does not answer. perhaps_changed: the change may have been made before."""
    words = (
        "The service lost its database on the way. What was asked for may have been done already; check before you "
        "send it again."
        if perhaps_changed
        else "The service cannot reach its database at the moment. Nothing was changed; try again."
    )
    return Refusal(Kind.UNAVAILABLE, "database-unavailable", words, retry_after=AWAY_SECONDS)


def unanswered(error: DatabaseUnavailable) -> Refusal:
    """The refusal where the database answered nothing of use: for now, or until an operator put back what is gone."""
    if isinstance(error, TablesChanged):
        return fault()
    made = commits.get()
    perhaps_changed = error.in_doubt or (made is not None and made.made)
    if isinstance(error, DatabaseFull) and not perhaps_changed:
        words = "The database's disk is full. Nothing was changed; changes are taken again once there is room."
        return Refusal(Kind.UNAVAILABLE, "database-unavailable", words, retry_after=AWAY_SECONDS)
    return database_away(perhaps_changed=perhaps_changed)


def fault() -> Refusal:
    """The refusal after a fault of ours, which trying again would only repeat."""
    return Refusal(Kind.FAULT, "internal", "Something went wrong on our side.")


@dataclass(frozen=True, slots=True)
class Sharing:
    """What all APIs share: who called lately, the threads that answer, what commits SQLite's short changes together,
    and the slices of the event loop's rounds that agents get.
    """

    group_commits: GroupCommits
    callers: Callers = field(default_factory=Callers)
    scheduler: FairScheduler = field(default_factory=FairScheduler)
    slices: Slices = field(default_factory=Slices)


def application(instance: Instance, dialect: Dialect, sharing: Sharing) -> ASGIApp:
    """A mounted application that serves one dialect and answers only in its words."""

    @cache  # at the first request: a service starts without what is for APIs that nobody asks
    def paths() -> Paths[_Path]:
        by_path: dict[str, dict[str, Endpoint]] = {}
        for endpoint in dialect.endpoints:
            by_path.setdefault(endpoint.path, {})[endpoint.method] = endpoint
        return Paths((path or "/", _Path(instance, dialect, sharing, methods)) for path, methods in by_path.items())

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        match = paths().find(scope["path"].removeprefix(scope["root_path"]))
        if match is not None:
            one_path, scope["path_params"] = match
            await one_path(scope, receive, send)
            return
        request = Request(scope, receive)
        if dialect.waits_unknown(request):
            response = await run_in_threadpool(dialect.unknown_path, request)
        else:
            response = dialect.unknown_path(request)
        dialect.finish(request, None, response)
        await response(scope, receive, send)

    return answer


class _Path:
    """All methods of one path, as an ASGI application."""

    def __init__(self, instance: Instance, dialect: Dialect, sharing: Sharing, methods: Mapping[str, Endpoint]) -> None:
        self._instance = instance
        self._dialect = dialect
        self._callers, self._scheduler = sharing.callers, sharing.scheduler
        self._methods = dict(methods)
        self._slow: dict[tuple[Hashable, str], float] = {}
        self._group_commits = sharing.group_commits
        self._in_fibers = instance.database.waits_in_fibers
        if "GET" in self._methods:
            self._methods.setdefault("HEAD", self._methods["GET"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        response, actor = await self._answer(request)
        self._dialect.finish(request, actor, response)
        whole: Callable[[Response], bool] | None = scope.get(ANSWER)
        # A response with a __call__ of its own, such as a stream, does more than to be written.
        plain = type(response).__call__ is Response.__call__ and response.background is None
        if whole is None or not plain or not whole(response):
            await response(scope, receive, send)

    async def _answer(self, request: Request) -> tuple[Response, Actor | None]:
        handling = _Handling(self._instance, self._dialect, request)
        caller = None
        commits.set(Commits())
        try:
            endpoint = self._methods.get(request.scope["method"])
            if endpoint is None:
                return self._dialect.not_supported(request, tuple(self._methods)), None
            bodies.check_encoding(request)
            at_home = endpoint.hashes and self._instance.throttle.is_home(address_of(request))
            caller = self._callers.of(request, at_home=at_home)
            content = await self._read(endpoint, request, caller)
            run = partial(handling.run, endpoint, content)
            short = endpoint.on_event_loop and caller.known and len(content) < LONG_BODY
            if short and self._slow.get((caller.name, endpoint.path), 0) < monotonic():
                try:
                    if self._in_fibers:
                        return await self._scheduler.in_fiber(caller, run), handling.actor
                    if request.method in ("GET", "HEAD"):
                        read = partial(self._answer_nonblocking, run)
                        return await self._scheduler.on_event_loop(caller, read), handling.actor
                    return await self._scheduler.in_group_commit(caller, run, self._group_commits), handling.actor
                except TooSlow:
                    self._note_slow((caller.name, endpoint.path))
                except WouldBlock:
                    pass
            long = len(content) >= LONG_BODY
            return await self._scheduler.run(caller, run, long=long, hashes=endpoint.hashes), handling.actor
        except Refusal as refusal:
            if refusal.kind is Kind.UNAUTHENTICATED and handling.actor is None:
                self._callers.rejected(request)
            if refusal.kind is Kind.TOO_LARGE and handling.actor is None and self._dialect.waits_unknown(request):
                with suppress(DatabaseUnavailable):
                    await run_in_threadpool(self._dialect.meet, request)
            return self._dialect.refuse(request, refusal), handling.actor
        except DatabaseUnavailable as error:
            return self._dialect.refuse(request, unanswered(error)), None
        except Exception:  # a fault of ours is an answer too, and is logged whole
            log.exception("request failed", method=request.method, path=access_log.shown(request.url.path))
            return self._dialect.refuse(request, fault()), None
        finally:
            if handling.actor is not None and handling.actor.user_id is not None:
                who = ("user", handling.actor.user_id)
                if caller is None or not caller.known or caller.name != who:
                    self._callers.accepted(request, who)

    def _answer_nonblocking(self, run: Callable[[], Response]) -> Response:
        # call_soon: what is put off runs after all that this round of the event loop has to do already.
        return self._instance.database.answer_nonblocking(run, asyncio.get_running_loop().call_soon)

    def _note_slow(self, what: tuple[Hashable, str]) -> None:
        """Have threads run these calls for a while: this one blocked the event loop for milliseconds."""
        if len(self._slow) >= MAX_SLOW:
            self._slow.clear()
        self._slow[what] = monotonic() + SLOW_SECONDS

    async def _read(self, endpoint: Endpoint, request: Request, caller: Caller) -> bytes:
        """The body. Raises Refusal; before a long one of somebody unknown is read, the proof must hold."""
        longest = self._instance.settings.max_body_bytes
        length = bodies.announced(request)
        if length == 0:
            return b""
        if endpoint.open:
            return await bodies.read(request, min(longest, LONGEST_OPEN_BODY))
        long = length is None or length >= LONG_BODY
        if long and not caller.known and not is_signed(request):
            bodies.check_length(request, longest)
            await self._scheduler.run(caller, partial(self._dialect.authenticate, self._instance, request))
        if not long:
            return await bodies.read(request, longest)
        async with self._scheduler.reading(caller, long=long):
            return await bodies.read(request, longest)


class _Handling:
    """One request. It runs once, or twice: what the event loop gives up, a thread runs again, as the same actor."""

    __slots__ = ("_dialect", "_instance", "_request", "actor")

    def __init__(self, instance: Instance, dialect: Dialect, request: Request) -> None:
        self._instance, self._dialect, self._request = instance, dialect, request
        self.actor: Actor | None = None
        """Who asks; None until it is known."""

    def run(self, endpoint: Endpoint, content: bytes) -> Response:
        """What the endpoint answers; content: the body. Raises Refusal, and WouldBlock where a thread is to run it."""
        dialect, request = self._dialect, self._request
        request.scope.setdefault("state", {})["content"] = content
        if self.actor is None:  # else a run on the event loop found and counted it before it was given up
            self.actor = self._identified(endpoint)
        # A GET's body is ignored: programs send {}, null and [] there.
        method = request.scope["method"]
        has_fields = method not in ("GET", "HEAD") and content.strip()
        fields, strings, unread = self._fields(content) if has_fields else ({}, False, None)
        if method == "PUT":
            # A PUT makes what its path names, so the name must be exactly what was sent.
            bodies.check_path(request)
        # PostgreSQL takes no NUL, and no name holds one.
        texts = {name: str(value).replace("\x00", "\ufffd") for name, value in request.path_params.items()}
        call = Call(
            instance=self._instance,
            actor=self.actor,
            request=request,
            ids={name: bodies.identifier(value) for name, value in texts.items()},
            path=texts,
            query=bodies.query(request, repeats=dialect.repeats),
            body=fields,
            strings=strings,
            unread=unread,
        )
        return endpoint.handler(call)

    def _identified(self, endpoint: Endpoint) -> Actor:
        dialect, request = self._dialect, self._request
        if endpoint.open:
            dialect.greet(request)
            return strangers(dialect.name, address_of(request))
        actor = dialect.authenticate(self._instance, request)
        noted = commits.get()
        if noted is not None:
            noted.made = False  # that the use of a token was noted is no change that the caller asked for
        return actor

    def _fields(self, content: bytes) -> tuple[Mapping[str, Any], bool, Refusal | None]:
        try:
            return *self._dialect.read_body(self._request, content), None
        except Refusal as refusal:
            if not self._dialect.says_unread:
                raise
            return {}, False, refusal
