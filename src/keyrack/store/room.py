"""Whether there is room for one more of a kind of row; must count no further than it has to."""

from __future__ import annotations

from functools import cache

from sqlalchemy import Column, Connection, func, select

from keyrack.store.engine.prepared import Statement, placeholder
from keyrack.store.tables import (
    credentials,
    enrolments,
    grants,
    groups,
    offboardings,
    projects,
    repositories,
    servers,
    system_users,
    users,
)

# By kind of row: the column with its owner, which has an index, and how many rows an owner may have.
LIMITS: dict[str, tuple[Column[int], int]] = {
    "server": (servers.c.workspace_id, 20_000),
    "user": (users.c.workspace_id, 50_000),
    "group": (groups.c.workspace_id, 10_000),
    "project": (projects.c.workspace_id, 10_000),
    "repository": (repositories.c.workspace_id, 20_000),
    "offboarding": (offboardings.c.workspace_id, 50_000),
    "grant": (grants.c.workspace_id, 50_000),
    "system user": (system_users.c.server_id, 2_000),
    "SSH key": (credentials.c.server_id, 50_000),
    "enrolment": (enrolments.c.server_id, 1_000),
}


def is_full(connection: Connection, kind: str, owner: int) -> bool:
    """Whether a workspace or server (its id) has as many rows of a kind as it may; kind: a name in LIMITS."""
    column, most = LIMITS[kind]
    # Each row has an id above 0 of its own: while the highest is below the limit, there cannot be so many rows.
    if (_newest(column).value(connection, {}) or 0) < most:
        return False
    return _last(column, most).row(connection, {"owner": owner}) is not None


@cache
def _newest(column: Column[int]) -> Statement:
    return Statement(lambda: select(func.max(column.table.c.id)))


@cache
def _last(column: Column[int], most: int) -> Statement:
    return Statement(lambda: select(column).where(column == placeholder(column, "owner")).offset(most - 1).limit(1))
