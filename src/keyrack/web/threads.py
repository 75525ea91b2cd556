"""Threads that run calls, also where the system gives no further one; must know no caller."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from keyrack.errors import Kind, Refusal

T = TypeVar("T")

AGAIN_SECONDS = 5


class Threads:
    """A bounded number of threads. What an event loop hands over is run by one of them, or refused and never run.

    An executor that cannot start a thread raises, and runs the call all the same once one of its threads is free: the
    caller would hear of a fault, and the change would be made.
    """

    def __init__(self, most: int, name: str, first: Callable[[], object] = lambda: None) -> None:
        """first: what each thread does as it begins."""
        self._there = 0

        def begin() -> None:
            self._there += 1
            first()

        self._executor = ThreadPoolExecutor(most, name, initializer=begin)

    def run(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """What the call answers. Raises Refusal UNAVAILABLE where there is no thread, and none can be started."""
        answer: Future[T] = Future()
        try:
            self._executor.submit(_work, call, answer)
        except RuntimeError:  # the system has no thread left: those that are there take it in their turn
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
