"""Threads are shared: whoever sends much, computes long or hashes waits for themselves, and nobody waits for them."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from keyrack.errors import Kind, Refusal
from keyrack.web import fair_queueing
from keyrack.web.api import LONGEST_OPEN_BODY
from keyrack.web.callers import Caller
from keyrack.web.fair_queueing import CallPool, FairScheduler
from keyrack.web.server import APIS
from tests.services import Service
from tests.store.no_threads import no_threads
from tests.web.runcloud_team import serving

OLGA, MALLORY = Caller("olga", known=True, at_home=True), Caller("mallory", known=True, at_home=True)
SECONDS = 30.0
MANY = 100


def crowd(number: int) -> Caller:
    """One of many strangers, each at an address of their own."""
    return Caller(("address", str(number)))


def test_a_slot_freed_as_its_waiter_gives_up_goes_to_the_next() -> None:
    async def run() -> None:
        shared = FairScheduler()
        limit = CallPool.BODIES.limit_per_caller
        held = [shared.reading(MALLORY, long=True) for _ in range(limit)]
        for one in held:
            await one.__aenter__()

        async def read() -> None:
            async with shared.reading(MALLORY, long=True):
                pass

        gives_up = asyncio.create_task(read())
        await asyncio.sleep(0)
        # All in one round of the event loop, and nobody else asks for a slot after it.
        gives_up.cancel()
        for one in held:
            await one.__aexit__(None, None, None)
        async with asyncio.timeout(SECONDS):
            await read()
        with pytest.raises(asyncio.CancelledError):
            await gives_up

    asyncio.run(run())


@pytest.mark.parametrize(
    ("others", "long", "hashes"),
    [
        (lambda number: MALLORY, False, False),
        (lambda number: MALLORY, True, False),
        (lambda number: MALLORY, False, True),
        (crowd, False, False),
        (crowd, True, False),
        (crowd, False, True),
    ],
)
def test_calls_of_one_caller_under_way_keep_nobody_else_waiting(
    others: Callable[[int], Caller], long: bool, hashes: bool
) -> None:
    go_on = threading.Event()

    async def run() -> None:
        shared = FairScheduler()
        theirs = [
            asyncio.create_task(shared.run(others(number), lambda: go_on.wait(SECONDS), long=long, hashes=hashes))
            for number in range(MANY)
        ]
        await asyncio.sleep(0)
        try:
            assert await asyncio.wait_for(shared.run(OLGA, lambda: "answered"), SECONDS / 2) == "answered"
            if others is crowd:
                proved = await asyncio.wait_for(shared.run(OLGA, lambda: "hashed", hashes=True), SECONDS / 2)
                assert proved == "hashed"
        finally:
            go_on.set()
            await asyncio.gather(*theirs)

    asyncio.run(run())


@pytest.mark.skipif(sys.platform != "linux", reason="a niceness of each thread's own")
def test_threads_that_hash_leave_the_processors_to_others() -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    async def run() -> tuple[int, int]:
        shared = FairScheduler()
        return await shared.run(OLGA, niceness), await shared.run(OLGA, niceness, hashes=True)

    usual, hashing = asyncio.run(run())
    assert hashing > usual


def test_a_call_that_is_refused_because_no_thread_can_be_started_is_not_run_later() -> None:
    done: list[str] = []

    async def run() -> None:
        shared = FairScheduler()
        with no_threads(), pytest.raises(Refusal) as refused:
            await shared.run(OLGA, lambda: done.append("refused"))
        await shared.run(OLGA, lambda: done.append("taken"))
        assert refused.value.kind is Kind.UNAVAILABLE

    asyncio.run(run())
    assert done == ["taken"]


def test_existing_threads_run_calls_when_no_further_thread_can_be_started() -> None:
    go_on = threading.Event()

    async def run() -> list[str]:
        shared = FairScheduler()
        first = asyncio.create_task(shared.run(OLGA, partial(go_on.wait, SECONDS)))
        await asyncio.sleep(0.01)
        with no_threads():
            others = [asyncio.create_task(shared.run(OLGA, lambda: "done")) for _ in range(3)]
            await asyncio.sleep(0.01)
        go_on.set()
        await first
        return await asyncio.gather(*others)

    assert asyncio.run(run()) == ["done"] * 3


def test_the_caller_who_used_less_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_queueing, "MEMORY_SECONDS", 10 * SECONDS)  # on a busy machine all this may take seconds
    order: list[str] = []
    go_on = [threading.Event() for _ in range(CallPool.LONG.limit)]

    def burn() -> None:
        until = time.thread_time() + 2 * fair_queueing.HEAVY_SECONDS
        while time.thread_time() < until:
            pass

    async def run() -> None:
        shared = FairScheduler()
        await shared.run(MALLORY, burn)
        held = [
            asyncio.create_task(shared.run(Caller(number, known=True), partial(over.wait, SECONDS), long=True))
            for number, over in enumerate(go_on)
        ]
        await asyncio.sleep(0.01)
        # What Mallory sends is short; that she computed so much makes her wait with what is long.
        hers = [asyncio.create_task(shared.run(MALLORY, lambda: order.append("mallory"))) for _ in range(3)]
        await asyncio.sleep(0.01)
        his = asyncio.create_task(shared.run(OLGA, lambda: order.append("olga"), long=True))
        await asyncio.sleep(0.01)
        assert not order
        # One place alone, or two threads would race.
        go_on[0].set()
        await his
        for over in go_on:
            over.set()
        await asyncio.gather(*held, *hers)

    asyncio.run(run())
    assert order[0] == "olga"
    assert order.count("mallory") == 3


def test_a_caller_who_gives_up_frees_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_queueing, "MAX_WAITING_PER_CALLER", 5)
    go_on = threading.Event()

    async def run() -> None:
        shared = FairScheduler()
        tasks = [asyncio.create_task(shared.run(MALLORY, lambda: go_on.wait(SECONDS), long=True)) for _ in range(7)]
        await asyncio.sleep(0.01)
        with pytest.raises(Refusal) as refused:
            await shared.run(MALLORY, lambda: None, long=True)
        assert refused.value.kind is Kind.THROTTLED
        assert refused.value.retry_after
        for task in tasks[2:]:
            task.cancel()
        await asyncio.gather(*tasks[2:], return_exceptions=True)
        go_on.set()
        await asyncio.gather(*tasks[:2])
        assert await asyncio.wait_for(shared.run(MALLORY, lambda: 7, long=True), SECONDS) == 7

    asyncio.run(run())


def first_line(service: Service, request: bytes) -> bytes:
    """How a service begins to answer bytes that promise more."""
    where = urlsplit(service.url)
    with socket.create_connection((where.hostname, where.port), timeout=SECONDS) as connection:
        connection.sendall(request)
        return connection.recv(65536).partition(b"\r\n")[0]


@pytest.mark.parametrize("length", [b"Content-Length: 900000", b"Transfer-Encoding: chunked"])
def test_a_long_body_without_credentials_is_refused_before_it_is_read(team: Service, length: bytes) -> None:
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%s\r\n%s\r\n\r\n"
    for path, proof in (
        (b"/api/v3/servers", b"Authorization: Bearer wrong"),
        (b"/v4/user/keys", b"X-Auth-Token: wrong"),
        (b"/agent/v1/report", b"Authorization: Bearer wrong"),
    ):
        assert first_line(team, head % (path, proof, length)).startswith(b"HTTP/1.1 401 ")


def test_a_caller_without_credentials_may_send_a_short_body_only(team: Service) -> None:
    body = b" " * (LONGEST_OPEN_BODY + 1)
    for path in ("/v3/auth/tokens", "/agent/v1/enroll"):
        assert team.call("POST", path, content=body, headers={"Content-Type": "application/json"}).status_code == 413


def test_pages_for_anybody_are_counted_by_address(team_folder: Path, tmp_path: Path) -> None:
    with serving(team_folder, tmp_path / "data", rate_limit=40) as service:
        for path in ("/docs", "/openapi.json", "/", "/agent/install.sh"):
            assert service.call("GET", path).status_code == 200
        answers = [service.call("GET", "/docs") for _ in range(60)]
        assert {answer.status_code for answer in answers} == {200, 429}
        assert answers[-1].headers["Retry-After"]
        assert service.call("GET", "/healthz").status_code == 200
        assert service.call("GET", "/api/v3/ping", token="token-of-olga").status_code == 200


def test_calls_that_set_or_check_passwords_have_threads_of_their_own() -> None:
    marked = {(endpoint.method, prefix + endpoint.path) for prefix, client in APIS for endpoint in client.endpoints}
    hashing = {
        (endpoint.method, prefix + endpoint.path)
        for prefix, client in APIS
        for endpoint in client.endpoints
        if endpoint.hashes
    }
    assert hashing <= marked
    wanted = {("POST", "/v3/auth/tokens"), ("POST", "/v3/users"), ("PATCH", "/v3/users/{user_id}")}
    wanted.add(("POST", "/v3/users/{user_id}/password"))
    for version in ("/api/v3", "/api/v2"):
        wanted.add(("POST", version + "/servers/{serverId}/users"))
        wanted.add(("PATCH", version + "/servers/{serverId}/users/{userId}/password"))
    assert hashing == wanted
