"""Keeps answers as long as nothing at all is written to the database; must know no table.

SQLite tells within two microseconds whether anybody changed the file since a connection asked last. If nobody did, the
same question has the same answer, which need not be read, checked and made again. Any write, by whichever process, ends
all kept answers.
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
"""How many records all kept answers may have, some 1.3 kB each unless something else keeps them too."""


class _Kept(NamedTuple):
    answer: Any
    root: bytes | None  # of the tree, if the question read it
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
    """What `ask` answers, or answered before if nothing was written since.

    of: identifies the question and all that its answer depends on besides the database and the time; at: the time, if
    the answer depends on it; until: tells of an answer from when on it may be wrong, None for never. Questions of
    threads, of a lent transaction after a write and of PostgreSQL are asked each time.
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
    # Answers with altered rows are not kept, so that these are checked and noted each time.
    if not seals_of(connection).unreported:
        records = 1 + len(answer.items) if isinstance(answer, Page) else 1
        if answers.records + records > MAX:
            answers.clear()
        answers.held[of] = _Kept(answer, access_tree.root_so_far(connection), at, until(answer))
        answers.records += records
    return answer
