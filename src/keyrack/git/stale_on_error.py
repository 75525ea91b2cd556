"""Asks the database, and while it does not answer gives its last answer for a short time; must hold no rule."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from keyrack.store.database import DatabaseUnavailable

T = TypeVar("T")

# How long the database may take to answer one query.
QUERY_TIMEOUT_SECONDS = 3.0
SILENT_SECONDS = 2.0
THREADS = 8
MAX_KNOWN = 20_000


class NoCachedAnswer(Exception):
    """The database does not answer, and there is no recent answer in the cache."""


class StaleOnErrorCache:
    """The database's answers; while it does not answer, the last ones (stale-if-error).

    A "no" replaces the "yes" before it. An answer is given again only while the database does not answer, and never
    when it is older than `seconds`: that is the longest that a revocation can go unnoticed.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._known: OrderedDict[Hashable, tuple[float, Any]] = OrderedDict()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="git question")
        self._silent_until = 0.0

    async def ask(self, name: Hashable, question: Callable[[], T]) -> T:
        """The database's answer, else the cached one. Raises NoCachedAnswer, or what the query raises."""
        asked_at = time.monotonic()
        try:
            answer = await self.ask_now(question)
        except NoCachedAnswer:
            known = self._known.get(name)
            if known is None or asked_at - known[0] > self._seconds:
                raise
            return known[1]  # type: ignore[no-any-return]
        self._known[name] = (asked_at, answer)
        self._known.move_to_end(name)
        self._forget(asked_at)
        return answer

    def _forget(self, now: float) -> None:
        """Drop answers that are too old, and the oldest where there are too many."""
        while self._known:
            asked_at, _ = next(iter(self._known.values()))
            if len(self._known) <= MAX_KNOWN and now - asked_at <= self._seconds:
                return
            self._known.popitem(last=False)

    def close(self) -> None:
        """Stop the threads; those that wait for a database end by themselves."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def ask_now(self, question: Callable[[], T]) -> T:
        """The database's answer; raises NoCachedAnswer, or what the question raises."""
        if time.monotonic() < self._silent_until:
            raise NoCachedAnswer
        try:
            future = asyncio.get_running_loop().run_in_executor(self._pool, question)
            return await asyncio.wait_for(future, QUERY_TIMEOUT_SECONDS)
        except TimeoutError:
            # Later logins must not each wait as long, or they would use up all unauthenticated connections of sshd.
            self._silent_until = time.monotonic() + SILENT_SECONDS
            raise NoCachedAnswer from None
        except DatabaseUnavailable:
            raise NoCachedAnswer from None
