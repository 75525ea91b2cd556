"""Of what thousands of hosts want a slice is done in each round of the event loop, and others are served between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from keyrack.core.hosts.contacts import Contact
from keyrack.store.hosts.servers import RevisionState
from keyrack.web.slices import MAX_STEPS, RoundRobin, Slices
from keyrack.web.waiting import ContactWaiters

MANY = 10 * MAX_STEPS


def in_a_loop(work: Callable[[], Awaitable[None]]) -> None:
    """Run a coroutine to its end."""

    async def whole() -> None:
        await work()

    asyncio.run(whole())


def test_other_requests_are_served_between_two_slices() -> None:
    async def work() -> None:
        slices, done = Slices(), list[int]()
        for number in range(MANY):
            slices.begin("all", partial(done.append, number))
        seen = []
        while len(done) < MANY:
            await asyncio.sleep(0)
            seen.append(len(done))
        steps = [after - before for before, after in zip([0, *seen], seen, strict=False)]
        assert max(steps) == MAX_STEPS
        assert done == list(range(MANY))

    in_a_loop(work)


def test_work_under_way_comes_before_new_work() -> None:
    async def work() -> None:
        slices, done = Slices(), list[str]()
        slices.begin("one", lambda: done.append("begins"))
        slices.go_on(lambda: done.append("goes on"))
        await asyncio.sleep(0)
        assert done == ["goes on", "begins"]

    in_a_loop(work)


def test_a_step_that_fails_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        slices, done = Slices(), list[int]()

        def fails() -> None:
            raise RuntimeError("a step that fails")

        slices.go_on(fails)
        slices.go_on(lambda: done.append(1))
        for _ in range(3):
            await asyncio.sleep(0)
        assert done == [1]

    in_a_loop(work)
    assert "a step that fails" in caplog.text


def test_a_host_that_wants_much_waits_behind_those_that_want_little() -> None:
    queue: RoundRobin[str] = RoundRobin()
    for wanted in ("a1", "a2", "a3"):
        queue.put("a", wanted)
    queue.put("b", "b1")
    assert len(queue) == 4
    assert queue.take_last() == "a3"
    assert [queue.take() for _ in range(3)] == ["a1", "b1", "a2"]
    assert not queue


def test_a_change_of_many_hosts_wakes_them_by_slices() -> None:
    async def work() -> None:
        waiting = ContactWaiters(Slices())
        waiting.start()
        waiters = {number: waiting.listen(number) for number in range(MANY)}
        waiting.wake(frozenset(waiters))
        woken = []
        while not all(waiter.done() for waiter in waiters.values()):
            await asyncio.sleep(0)
            woken.append(sum(waiter.done() for waiter in waiters.values()))
            assert len(woken) < 2 * MANY, "not all were woken"
        steps = [after - before for before, after in zip([0, *woken], woken, strict=False)]
        assert max(steps) == MAX_STEPS

    in_a_loop(work)


def test_a_state_read_before_a_host_was_woken_is_forgotten() -> None:
    """What it obeys may have been read before the change that is announced."""

    async def work() -> None:
        waiting = ContactWaiters(Slices())
        waiting.start()
        last = MANY - 1
        waiter = waiting.listen(last)
        waiting.wake(frozenset(range(MANY)))
        await asyncio.sleep(0)
        assert not waiter.done()
        waiting.known.note(Contact(last, b"secret", 1, ""), RevisionState(1, "", 1, "", "", None, None))
        assert waiting.known.server_of(b"secret", 1, "") == last
        await waiter
        assert waiting.known.server_of(b"secret", 1, "") is None

    in_a_loop(work)
