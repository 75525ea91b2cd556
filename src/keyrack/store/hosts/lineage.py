"""The random marks of a server's revisions, by which those of a lost database are known; must know no host.

Each revision has a mark, so the same number given by a lost database has another mark. A row of `servers` has the marks
of the last revisions. Older ones stay in older_marks for good, some nine bytes each, as a host may come back at any.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, select

from keyrack.store.dialect import insert_of
from keyrack.store.engine.prepared import Statement, placeholder, prepared
from keyrack.store.tables import older_marks

MARK_BYTES = 4
MARK_CHARACTERS = 2 * MARK_BYTES
IN_THE_ROW = 64
"""How many marks a server's row has; after as many new revisions they are copied to older_marks."""


def draw() -> str:
    """A mark for one revision."""
    return secrets.token_hex(MARK_BYTES)


def draw_many(count: int) -> list[str]:
    """So many marks, each drawn independently."""
    drawn = secrets.token_hex(MARK_BYTES * count)
    return [drawn[at : at + MARK_CHARACTERS] for at in range(0, len(drawn), MARK_CHARACTERS)]


def following(old: Mapping[str, Any], mark: str = "") -> dict[str, Any]:
    """A server's next revision and its marks; old: its row; mark: the new revision's, drawn here unless given."""
    marks = ((mark or draw()) + old["lineage"])[: IN_THE_ROW * MARK_CHARACTERS]
    return {"revision": old["revision"] + 1, "lineage": marks}


def keep(connection: Connection, rows: Iterable[Mapping[str, Any]], *, all_of_them: bool = False) -> None:
    """Copy the marks of servers to older_marks before they drop out of their rows, when it is time; all_of_them: now.

    rows: id, revision and lineage of each server.
    """
    full = [
        {"server_id": row["id"], "revision": row["revision"], "marks": row["lineage"]}
        for row in rows
        if row["lineage"] and (all_of_them or row["revision"] % IN_THE_ROW == 0)
    ]
    if full:
        _keeping(connection.dialect.name).run_many(connection, full)


@cache
def _keeping(dialect: str) -> Statement:
    named = {column.name: placeholder(column) for column in older_marks.c}
    return Statement(lambda: insert_of(dialect)(older_marks).values(named).on_conflict_do_nothing())


def is_mark_of(marks: str, newest: int, revision: int, mark: str) -> bool:
    """Whether a revision has this mark, by marks of which the first is that of the newest revision."""
    at = (newest - revision) * MARK_CHARACTERS
    return at >= 0 and marks[at : at + MARK_CHARACTERS] == mark


def is_kept_mark_of(connection: Connection, server_id: int, revision: int, mark: str) -> bool:
    """The same by older_marks."""
    kept = _kept.row(connection, server_id, revision)
    return kept is not None and is_mark_of(kept.marks, kept.revision, revision, mark)


@prepared
def _kept(server_id: int, revision: int) -> Select[Any]:
    statement = select(older_marks.c.revision, older_marks.c.marks)
    statement = statement.where(older_marks.c.server_id == server_id, older_marks.c.revision >= revision)
    return statement.order_by(older_marks.c.revision).limit(1)
