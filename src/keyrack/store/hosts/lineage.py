"""The random marks of a server's revisions, which tell this database's from those of a lost one; must know no host.

Every revision has a mark: a number that a lost database gave to something else has another mark. A row of
`servers` has those of the last revisions. Older ones are kept apart, for good, as a host may come back from any of
them: nine bytes a change, which nobody reads but for a host that is so far behind.
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
"""So many marks a server's row has; each time that so many are new they are kept apart."""


def draw() -> str:
    """A mark for one revision."""
    return secrets.token_hex(MARK_BYTES)


def draw_many(count: int) -> list[str]:
    """As many marks, each drawn by itself."""
    drawn = secrets.token_hex(MARK_BYTES * count)
    return [drawn[at : at + MARK_CHARACTERS] for at in range(0, len(drawn), MARK_CHARACTERS)]


def following(old: Mapping[str, Any], mark: str = "") -> dict[str, Any]:
    """A server's next revision and its marks; old: its row, mark: the new one's, drawn here unless given."""
    marks = ((mark or draw()) + old["lineage"])[: IN_THE_ROW * MARK_CHARACTERS]
    return {"revision": old["revision"] + 1, "lineage": marks}


def keep(connection: Connection, rows: Iterable[Mapping[str, Any]], *, all_of_them: bool = False) -> None:
    """Keep the marks of servers before they leave their rows; all_of_them: now, as they leave together.

    rows: id, revision and lineage of each, as they were just written.
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
    """The same, by the marks that are kept apart."""
    kept = _kept.row(connection, server_id, revision)
    return kept is not None and is_mark_of(kept.marks, kept.revision, revision, mark)


@prepared
def _kept(server_id: int, revision: int) -> Select[Any]:
    statement = select(older_marks.c.revision, older_marks.c.marks)
    statement = statement.where(older_marks.c.server_id == server_id, older_marks.c.revision >= revision)
    return statement.order_by(older_marks.c.revision).limit(1)
