"""What is kept of the database's answers for when it is away, and what is not kept any longer than it may be given."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Iterator

import pytest

from keyrack.git.stale_on_error import NoCachedAnswer, StaleOnErrorCache
from keyrack.store.database import DatabaseUnavailable

SECONDS = 0.2


class Answer:
    """Something that memory is spent on."""


@pytest.fixture
def cache() -> Iterator[StaleOnErrorCache]:
    """Answers that may be given again for SECONDS."""
    cache = StaleOnErrorCache(SECONDS)
    yield cache
    cache.close()


def away() -> Answer:
    """The database, where it is away."""
    raise DatabaseUnavailable("gone")


def test_an_answer_is_reused_while_it_is_fresh_and_freed_after(cache: StaleOnErrorCache) -> None:
    async def asked() -> list[weakref.ref[Answer]]:
        kept = [weakref.ref(await cache.ask(number, Answer)) for number in range(3)]
        assert await cache.ask(1, away) is kept[1]()
        return kept

    kept = asyncio.run(asked())
    time.sleep(SECONDS)
    with pytest.raises(NoCachedAnswer):
        asyncio.run(cache.ask(1, away))
    asyncio.run(cache.ask("another", Answer))
    gc.collect()  # what was raised names it, too
    assert [one() for one in kept] == [None] * 3
