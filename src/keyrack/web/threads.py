"""Threads that run calls, also when the system allows no further one; must know no caller."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from keyrack.errors import Kind, Refusal

T = TypeVar("T")

AGAIN_SECONDS = 5


class Threads:
    """A bounded number of threads, for an event loop. A call that it does not take is never run.

    When ThreadPoolExecutor cannot start a thread, it raises but keeps the call, and runs it once a thread is free: the
    caller is told of a fault, and the change is made all the same.
    """

    def __init__(self, most: int, name: str, first: Callable[[], object] = lambda: None) -> None:
        """first: what each thread runs when it starts."""
        self._there = 0

        def begin() -> None:
            self._there += 1
            first()

        self._executor = ThreadPoolExecutor(most, name, initializer=begin)

    def run(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Run a call on a thread and return its result. Raises Refusal UNAVAILABLE when no thread can be started."""
        answer: Future[T] = Future()
        try:
            self._executor.submit(_work, call, answer)
        except RuntimeError:  # no thread can be started: an existing one runs the call in its turn
            if not self._there and answer.cancel():
                words = "The service's system allows it no further thread. Try again later."
                raise Refusal(Kind.UNAVAILABLE, "busy", words, retry_after=AGAIN_SECONDS) from None
        return asyncio.wrap_future(answer)


def _work(call: Callable[[], T], answer: Future[T]) -> None:
    if not answer.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:  # the caller gets it, whatever it is
        answer.set_exception(error)
        del answer  # what was raised leads back here, in a circle
    else:
        answer.set_result(result)
