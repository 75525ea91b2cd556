"""Sets times that were noted by a clock that was ahead, and so lie in the future, to now; must decide nothing.

at: the time now; latest: the latest time that a right clock can have noted.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, update

from keyrack.store.sealing import sealed
from keyrack.store.tables import IS_WAITING, git_endpoints, key_sources, servers, webhook_deliveries


def hosts_seen(connection: Connection, at: datetime, *, latest: datetime) -> None:
    """When hosts were last heard of."""
    sealed.change(connection, servers, servers.c.seen_at > latest, values={"seen_at": at})


def git_endpoints_seen(connection: Connection, at: datetime, *, latest: datetime) -> None:
    """When processes that serve Git were last heard of."""
    connection.execute(update(git_endpoints).where(git_endpoints.c.seen_at > latest).values(seen_at=at))


def deliveries_due(connection: Connection, at: datetime, *, latest: datetime) -> None:
    """When waiting deliveries of webhooks are sent next."""
    connection.execute(
        update(webhook_deliveries).where(IS_WAITING, webhook_deliveries.c.next_at > latest).values(next_at=at)
    )


def key_sources_due(connection: Connection, at: datetime, *, latest: datetime) -> None:
    """When key sources are checked next."""
    sealed.change(connection, key_sources, key_sources.c.next_at > latest, values={"next_at": at})
