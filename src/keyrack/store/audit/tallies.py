"""Questions about daily tallies: what was counted on each day; must decide nothing."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from sqlalchemy import Connection, Delete, Select, delete, select

from keyrack.store.dialect import insert_of
from keyrack.store.engine.prepared import Row, Statement, placeholder, prepared
from keyrack.store.tables import daily_tallies, workspaces

Tally = tuple[int, int, str]
"""Workspace id, day (days since 1970, in UTC) and what was counted."""


def add(connection: Connection, counted: Mapping[Tally, int]) -> None:
    """Add numbers to tallies; those of workspaces that are gone are left out."""
    there = set(_workspaces.values(connection))
    rows = [
        {"workspace_id": workspace_id, "day": day, "what": what, "number": number}
        for (workspace_id, day, what), number in sorted(counted.items())
        if workspace_id in there
    ]
    if rows:
        _adding(connection.dialect.name).run_many(connection, rows)


@cache
def _adding(dialect: str) -> Statement:
    def make() -> Any:
        new = insert_of(dialect)(daily_tallies).values({column.name: placeholder(column) for column in daily_tallies.c})
        return new.on_conflict_do_update(
            index_elements=[daily_tallies.c.workspace_id, daily_tallies.c.day, daily_tallies.c.what],
            set_={"number": daily_tallies.c.number + new.excluded.number},
        )

    return Statement(make)


@prepared
def _workspaces() -> Select[Any]:
    return select(workspaces.c.id)


def since(connection: Connection, workspace_id: int, day: int) -> list[Row]:
    """The tallies of a workspace from a day on: day, what, number."""
    return list(_since.rows(connection, workspace_id, day))


@prepared
def _since(workspace_id: int, day: int) -> Select[Any]:
    return select(daily_tallies.c.day, daily_tallies.c.what, daily_tallies.c.number).where(
        daily_tallies.c.workspace_id == workspace_id, daily_tallies.c.day >= day
    )


def forget(connection: Connection, before: int) -> None:
    """Delete the tallies of days before a day."""
    _forget.run(connection, before)


@prepared
def _forget(before: int) -> Delete:
    return delete(daily_tallies).where(daily_tallies.c.day < before)
