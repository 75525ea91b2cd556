"""The streams by which open pages hear that something moved: what they tell, to whom, and when they end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta

import httpx2

from keyrack.core.hosts import modes
from keyrack.core.keys import requests, user_keys
from keyrack.core.people import actors, users, web_sessions
from keyrack.model import Actor
from keyrack.web.console import live
from tests.console.conftest import COOKIE, session_of
from tests.core.keys_for_tests import fresh_line
from tests.plain_http import PLAIN
from tests.services import Service

KEYRACK = actors.system_actor(1)
ACCEPT = {"Accept": "text/event-stream"}


@contextmanager
def browser_of(console: Service, name: str) -> Iterator[httpx2.Client]:
    """A browser that somebody is signed in with."""
    with httpx2.Client(base_url=console.url, headers=ACCEPT, verify=PLAIN, timeout=20) as client:
        client.cookies.set(COOKIE, session_of(console, name), domain="127.0.0.1")
        yield client


@contextmanager
def stream_of(client: httpx2.Client, watched: str) -> Iterator[Iterator[str]]:
    """What a stream tells, word by word."""
    with client.stream("GET", f"/live?{watched}") as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        lines = answer.iter_lines()
        yield (line.removeprefix("event: ") for line in lines if line.startswith("event: "))


def actor_of(console: Service, name: str) -> Actor:
    """Somebody of the team."""
    user = next(one for one in users.find(console.instance, KEYRACK) if one.name == name)
    return web_sessions.actor_of(user, address="127.0.0.1")


def next_word(words: Iterator[str]) -> str:
    """The next word that is no beat."""
    return next(word for word in words if word != live.BEAT)


def test_a_stream_sends_that_something_changed(console: Service) -> None:
    with browser_of(console, "olga") as client, stream_of(client, "host=1&requests=1") as words:
        assert next_word(words) == live.CHANGED  # at its beginning: what moved since the page was made
        modes.set_mode(console.instance, KEYRACK, 1, "enforce")
        assert next_word(words) == live.CHANGED
        mallory = actor_of(console, "mallory")
        requests.ask(console.instance, mallory, server=1, system_user="deploy", duration="1h", reason="to look")
        assert next_word(words) == live.CHANGED


def test_a_stream_sends_only_changes_of_what_its_person_may_see(console: Service) -> None:
    with browser_of(console, "mallory") as client:
        for watched in ("host=1", "person=olga"):
            assert client.get(f"/live?{watched}").status_code == 403
        assert client.get("/live").status_code == 204
    with browser_of(console, "alice") as client, stream_of(client, "person=alice") as words:
        assert next_word(words) == live.CHANGED
        user_keys.add(console.instance, actor_of(console, "alice"), title="laptop", public_key=fresh_line())
        assert next_word(words) == live.CHANGED


def test_a_stream_ends_with_its_session_and_when_rights_change(console: Service) -> None:
    with browser_of(console, "alice") as client, stream_of(client, "person=alice") as words:
        alice = actor_of(console, "alice")
        assert next_word(words) == live.CHANGED
        for session in web_sessions.own(console.instance, alice):
            web_sessions.end(console.instance, alice, session.id)
        assert next_word(words) == live.OVER
        assert next(words, None) is None, "the answer ends"


def test_streams_of_a_session_are_bounded_and_have_no_threads(console: Service) -> None:
    with browser_of(console, "olga") as client, ExitStack() as open_streams:
        for number in range(live.MAX_PER_SESSION):
            words = open_streams.enter_context(stream_of(client, "host=1"))
            assert next_word(words) == live.CHANGED
            if number == 0:
                threads = threading.active_count()
        # The handlers' pool may have grown by one meanwhile, streams have nothing to do with that.
        assert threading.active_count() < threads + live.MAX_PER_SESSION - 1
        refused = client.get("/live?host=1")
        assert refused.status_code == 429
        assert refused.headers["retry-after"]
        assert refused.headers["cache-control"] == "no-store"


def test_a_polling_page_keeps_no_session_alive(console: Service) -> None:
    with browser_of(console, "bob") as client:
        bob, before = actor_of(console, "bob"), console.instance.now
        (session,) = web_sessions.own(console.instance, bob)
        object.__setattr__(console.instance, "now", lambda: before() + timedelta(minutes=5))
        try:
            client.get("/requests", headers={"HX-Request": "true", "X-Keyrack-Live": "yes"})
            assert web_sessions.own(console.instance, bob)[0].seen_at == session.seen_at
            client.get("/requests", headers={"HX-Request": "true"})
            assert web_sessions.own(console.instance, bob)[0].seen_at > session.seen_at
        finally:
            object.__setattr__(console.instance, "now", before)
