"""Questions about key sources: accounts at GitHub or GitLab whose keys users have here too; must decide nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Select, select

from keyrack.store.engine.prepared import Row, prepared
from keyrack.store.rows import inserted
from keyrack.store.sealing import sealed, seals
from keyrack.store.tables import key_sources, users


@dataclass(frozen=True, slots=True)
class KeySource:
    """An account at GitHub or GitLab (kind) at an address (url) whose keys a user has here too.

    account_id: its number there, None until it is known; keys: the fingerprints it had at the last check, each with the
    id of the user key made of it, None if the user had that key already; etag: of that list, "" to read it whatever it
    is; state: "new", "in step", "partly", "no answer", "waiting", or an alarm: "gone", "renamed", "moved"; words: why;
    next_at: when it is checked next.
    """

    id: int
    workspace_id: int
    user_id: int
    kind: str
    url: str
    account: str
    account_id: str | None
    keys: Mapping[str, int | None]
    etag: str
    state: str
    words: str
    checked_at: datetime | None
    next_at: datetime
    created_at: datetime


def of_user(connection: Connection, user_id: int) -> tuple[KeySource, ...]:
    """The sources of a user that are as Keyrack wrote them, oldest first."""
    return _read(connection, key_sources.c.user_id == user_id)


@prepared
def _rows_of_user(user_id: int) -> Select[Any]:
    return select(key_sources).where(key_sources.c.user_id == user_id).order_by(key_sources.c.id)


def rows_of_user(connection: Connection, user_id: int) -> list[Row]:
    """The rows of a user's sources, also of those that are not as Keyrack wrote them."""
    return _rows_of_user.rows(connection, user_id)


def of_workspace(connection: Connection, workspace_id: int) -> tuple[KeySource, ...]:
    """The sources of a workspace's users who are not disabled, if as Keyrack wrote them, oldest first."""
    there = select(users.c.id).where(users.c.disabled_at.is_(None))
    return _read(connection, key_sources.c.workspace_id == workspace_id, key_sources.c.user_id.in_(there))


def due(connection: Connection, at: datetime, limit: int) -> tuple[KeySource, ...]:
    """The sources of all workspaces that are to be checked, as of_workspace, the longest due first, at most `limit`."""
    there = select(users.c.id).where(users.c.disabled_at.is_(None))
    which = (key_sources.c.next_at <= at, key_sources.c.user_id.in_(there))
    # Limited after the seals are checked: altered rows stay due for ever, and many of them would crowd out the others.
    return tuple(islice(_sound(connection, which, key_sources.c.next_at), limit))


def by_id(connection: Connection, source_id: int) -> KeySource | None:
    """A source that is as Keyrack wrote it, or None."""
    sources = _read(connection, key_sources.c.id == source_id)
    return sources[0] if sources else None


def _read(connection: Connection, *where: Any) -> tuple[KeySource, ...]:
    return tuple(_sound(connection, where, key_sources.c.id))


def _sound(connection: Connection, where: Sequence[Any], order: Any) -> Iterator[KeySource]:
    for row in connection.execute(select(key_sources).where(*where).order_by(order)).mappings():
        if sealed.sound(connection, key_sources, row):
            yield KeySource(**seals.unsealed(row))


def add(connection: Connection, values: Mapping[str, Any]) -> int:
    """Insert a source (the columns of the table); answers its id."""
    return inserted(connection, key_sources, values)


def change(connection: Connection, source_id: int, values: Mapping[str, Any]) -> None:
    """Change a source."""
    sealed.change(connection, key_sources, key_sources.c.id == source_id, values=values)


def remove(connection: Connection, source_id: int) -> None:
    """Delete a source; its keys stay."""
    sealed.remove(connection, key_sources, key_sources.c.id == source_id)
