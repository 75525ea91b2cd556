"""Answers kept as long as nothing at all was written to the database; must know no table.

SQLite tells with two microseconds of work whether anybody changed the file since a connection asked last. Where nobody
did, the same question has the same answer: nothing of it is read, checked and made again. Whatever is written, by
whichever process, a host's report included, ends all of them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection

from keyrack.model import Page
from keyrack.store.engine.nonblocking import unchanged_answers
from keyrack.store.sealing import access_tree
from keyrack.store.sealing.seals import seals_of

T = TypeVar("T")

MAX = 10_000
"""Records of which all that is kept consists; some 1.3 kB each, where nothing else keeps them."""


class _Kept(NamedTuple):
    answer: Any
    root: bytes | None  # of the tree, where it was read beside
    since: datetime | None
    until: datetime | None


def kept(
    connection: Connection,
    of: Hashable,
    ask: Callable[[], T],
    *,
    at: datetime | None = None,
    until: Callable[[T], datetime | None] = lambda answer: None,
) -> T:
    """What `ask` answers, or answered before while nothing was written since.

    of: names the question and all that its answer depends on besides the database and the time; at: the time, where it
    depends on that; until: the instant from which an answer of that time would be another one, None where there is
    none. What is asked by threads, in a lent transaction after a write, and on PostgreSQL, is asked each time.
    """
    answers = unchanged_answers(connection)
    if answers is None:
        return ask()
    held: _Kept | None = answers.held.get(of)
    if held is not None and (
        at is None or (held.since is not None and held.since <= at and (held.until is None or at < held.until))
    ):
        access_tree.take_checked_root(connection, held.root)
        answer: T = held.answer
        return answer
    answer = ask()
    # A row that does not hold is looked at, and told of, each time.
    if not seals_of(connection).unreported:
        records = 1 + len(answer.items) if isinstance(answer, Page) else 1
        if answers.records + records > MAX:
            answers.clear()
        answers.held[of] = _Kept(answer, access_tree.root_so_far(connection), at, until(answer))
        answers.records += records
    return answer
