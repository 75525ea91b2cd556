"""Puts times that were noted while the clock was ahead, and so lie in the future, back to now; must decide nothing.

at: the time now; latest: a time noted beyond it is none of a clock that is right. Aware, both.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, update

from keyrack.store.sealing import sealed
from keyrack.store.tables import IS_WAITING, git_endpoints, key_sources, servers, webhook_deliveries


def hosts_seen(connection: Connection, at: datetime, *, latest: datetime) -> None:
    """When hosts were heard of last."""
    sealed.change(connection, servers, servers.c.seen_at > latest, values={"seen_at": at})


def git_endpoints_seen(connection: Connection, at: datetime, *, latest: datetime) -> None:
    """When processes that serve Git were heard of last."""
    connection.execute(update(git_endpoints).where(git_endpoints.c.seen_at > latest).values(seen_at=at))


def deliveries_due(connection: Connection, at: datetime, *, latest: datetime) -> None:
    """When webhooks are tried again."""
    connection.execute(
        update(webhook_deliveries).where(IS_WAITING, webhook_deliveries.c.next_at > latest).values(next_at=at)
    )


def key_sources_due(connection: Connection, at: datetime, *, latest: datetime) -> None:
    """When accounts that keys come from are looked at again."""
    sealed.change(connection, key_sources, key_sources.c.next_at > latest, values={"next_at": at})
