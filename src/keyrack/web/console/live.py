"""Streams that tell open pages when something moved (server-sent events); must tell nothing of what moved.

Once a second each process asks for all its streams together whether something moved, on the event loop: a stream has
neither a thread nor questions of its own. A page that is told fetches its parts again, as it fetched them first.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Hashable
from contextlib import suppress

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from keyrack.core import watching
from keyrack.core.instance import Instance
from keyrack.core.people import web_sessions
from keyrack.core.watching import Watched
from keyrack.logs import logger
from keyrack.store.database import DatabaseUnavailable
from keyrack.store.people.web_sessions import Visitor

LIVE = "live"
"""The name of the streams of a process in a request's state."""
BY_ITSELF = "x-keyrack-live"
"""The header of requests that a page makes by itself: they do not keep an idle session from ending."""
STREAM = "/live"
POLL_SECONDS = 1.0
SESSIONS_EACH = 3
"""After how many polls it is asked again which sessions have ended."""
BEAT_SECONDS = 10.0
MAX_PER_SESSION = 8
MAX = 2000
BUSY_SECONDS = 5
log = logger("keyrack.web")

CHANGED, AWAY, OVER, BEAT = "changed", "away", "over", "beat"


def is_by_itself(request: Request) -> bool:
    """Whether a page made this request by itself, to keep what it shows up to date."""
    return BY_ITSELF in request.headers or request.url.path == STREAM


class _Listener:
    """One stream. mark: the state that it was told of last, None before the first poll."""

    def __init__(self, visitor: Visitor, watched: Watched) -> None:
        self.visitor, self.watched = visitor, watched
        self.mark: Hashable = None
        self.is_away = False
        self._said: str | None = None
        self._waiter: asyncio.Future[None] | None = None

    def say(self, word: str) -> None:
        """Have the stream send a word. It replaces a word that was not sent yet, unless that was OVER."""
        if self._said != OVER:
            self._said = word
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next_word(self, gone: asyncio.Future[None]) -> str:
        """The next word to send, BEAT if there was none for a while; gone: done when nobody listens any more."""
        if self._said is None:
            self._waiter = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._waiter, gone), timeout=BEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        word, self._said = self._said or BEAT, None
        return word


class Live:
    """The open streams of a process."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._listeners: set[_Listener] = set()
        self._of_session: Counter[int] = Counter()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = False

    def start(self) -> None:
        """Remember the loop that streams run on; call it there."""
        self._loop = asyncio.get_running_loop()

    def let_go(self) -> None:
        """End all streams, so that a stopping service waits for none; from any thread."""
        self._closing = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end_all)

    async def poll(self) -> None:
        """Ask each second whether something moved, until cancelled; without a stream nothing is asked."""
        number = 0
        while True:
            await asyncio.sleep(POLL_SECONDS)
            number += 1
            if listeners := tuple(self._listeners):
                await self._poll_once(listeners, sessions=number % SESSIONS_EACH == 0)

    def stream(self, visitor: Visitor, watched: Watched) -> Response:
        """An answer that goes on until its session ends, its reader leaves or the service stops."""
        return _Stream(self, _Listener(visitor, watched))

    def is_full_for(self, listener: _Listener) -> bool:
        """Whether this stream would be one too many."""
        full = len(self._listeners) >= MAX
        return self._closing or full or self._of_session[listener.visitor.session.id] >= MAX_PER_SESSION

    def enter(self, listener: _Listener) -> None:
        """Tell a stream what moves from now on."""
        self._listeners.add(listener)
        self._of_session[listener.visitor.session.id] += 1

    def leave(self, listener: _Listener) -> None:
        """Tell it no more."""
        number = listener.visitor.session.id
        self._listeners.discard(listener)
        self._of_session[number] -= 1
        if not self._of_session[number]:
            del self._of_session[number]

    async def _poll_once(self, listeners: tuple[_Listener, ...], *, sessions: bool) -> None:
        watched = frozenset(one.watched for one in listeners)
        visitors = [one.visitor for one in listeners]
        try:
            marks = await run_in_threadpool(watching.marks, self._instance, watched)
            going = await run_in_threadpool(web_sessions.unchanged, self._instance, visitors) if sessions else None
        except Exception as error:  # pages are told that it is away, and the next poll may succeed
            if not isinstance(error, DatabaseUnavailable):
                log.exception("asking what moved failed")
            for listener in listeners:
                if not listener.is_away:
                    listener.is_away = True
                    listener.say(AWAY)
            return
        for listener in listeners:
            mark = marks[listener.watched]
            if going is not None and listener.visitor.session.id not in going:
                listener.say(OVER)
            elif mark != listener.mark or listener.is_away:
                # Also at the first poll: nobody was told what moved since the page was made.
                listener.mark, listener.is_away = mark, False
                listener.say(CHANGED)

    def _end_all(self) -> None:
        for listener in self._listeners:
            listener.say(OVER)


class _Stream(Response):
    """The answer of a stream: events that say only that something moved."""

    media_type = "text/event-stream"

    def __init__(self, live: Live, listener: _Listener) -> None:
        super().__init__()
        del self.headers["content-length"]
        self.headers["X-Accel-Buffering"] = "no"  # or nginx keeps it back
        self._live, self._listener = live, listener

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._live.is_full_for(self._listener):
            headers = {**self.headers, "Retry-After": str(BUSY_SECONDS)}
            del headers["content-type"]
            await PlainTextResponse("Too many pages are kept up to date.", 429, headers)(scope, receive, send)
            return
        self._live.enter(self._listener)
        gone: asyncio.Future[None] = asyncio.ensure_future(_until_gone(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            if scope["method"] == "GET":
                await self._tell(gone, send)
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._live.leave(self._listener)
            gone.cancel()
            with suppress(asyncio.CancelledError):
                await gone

    async def _tell(self, gone: asyncio.Future[None], send: Send) -> None:
        await send({"type": "http.response.body", "body": b"retry: 3000\n\n", "more_body": True})
        word = ""
        while word != OVER and not gone.done():
            word = await self._listener.next_word(gone)
            text = f"event: {word}\ndata: 1\n\n".encode()
            await send({"type": "http.response.body", "body": text, "more_body": True})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
