"""Raises alarms: events about what was done past Keyrack, or is wrong on a host; must stop nothing."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import Connection

from keyrack.core.instance import Instance
from keyrack.core.people.actors import system_actor
from keyrack.logs import logger
from keyrack.model import Server
from keyrack.store.audit import events
from keyrack.store.database import DatabaseUnavailable
from keyrack.store.hosts import servers
from keyrack.store.people import workspaces

# The same alarm is raised again only after this time, as hosts ask every few seconds for a document that is not signed.
AGAIN_AFTER = timedelta(hours=1)
MAX_PER_HOUR = 50

log = logger("keyrack")


def raise_once(
    instance: Instance, server_id: int, code: str, words: str, details: Mapping[str, str] | None = None
) -> None:
    """Raise an alarm about a server, unless it was raised within AGAIN_AFTER. code, details: of the event."""
    now = instance.now()

    def is_known(connection: Connection) -> bool:
        return events.was_raised(connection, server_id, code, _summary(words), now - AGAIN_AFTER)

    def add(connection: Connection) -> bool:
        server = servers.by_id(connection, server_id)
        if server is None or is_known(connection):
            return False
        return record(connection, server, code, words, now, details)

    try:
        if not instance.database.read(is_known) and instance.database.write(add):
            log.error("alarm", server=server_id, reason=words)
    except DatabaseUnavailable:
        log.error("alarm not recorded", server=server_id, reason=words)


def raise_about_database(instance: Instance, code: str, summary: str) -> bool:
    """Record an alarm about the database itself in the first workspace, unless it was raised within AGAIN_AFTER;
    answers whether it is new. code: the event's reason. Raises DatabaseUnavailable.
    """
    now = instance.now()

    def is_known(connection: Connection) -> bool:
        first = workspaces.first_workspace_id(connection)
        return events.was_raised_in(connection, first, code, summary, now - AGAIN_AFTER)

    def add(connection: Connection) -> bool:
        if is_known(connection):
            return False
        events.add(
            connection,
            system_actor(workspaces.first_workspace_id(connection), channel="agent"),
            at=now,
            action="events:read",
            outcome="refused",
            reason=code,
            target_kind="event",
            target_id=None,
            server_id=None,
            summary=summary,
            level="alarm",
            details={},
        )
        return True

    return not instance.database.read(is_known) and instance.database.write(add)


def record(
    connection: Connection,
    server: Server,
    code: str,
    words: str,
    now: datetime,
    details: Mapping[str, str] | None = None,
) -> bool:
    """Record an alarm about a server within a transaction; answers whether an event was recorded.

    Beyond MAX_PER_HOUR alarms with one code there is one more, which says that the rest is left out: a host can report
    something new each time.
    """
    recent = events.count_lately(connection, server.id, code, now - AGAIN_AFTER)
    if recent > MAX_PER_HOUR:
        return False
    if recent == MAX_PER_HOUR:
        words = f"host {server.name} raised this more than {MAX_PER_HOUR} times within an hour; the rest is left out"
    events.add(
        connection,
        system_actor(server.workspace_id, channel="agent"),
        at=now,
        action="servers:write",
        outcome="refused",
        reason=code,
        target_kind="server",
        target_id=server.id,
        server_id=server.id,
        summary=_summary(words),
        level="alarm",
        details=details or {},
    )
    return True


def was_recorded(connection: Connection, server: Server, code: str, words: str, now: datetime) -> bool:
    """Whether this very alarm about a server was recorded within AGAIN_AFTER."""
    return events.was_raised(connection, server.id, code, _summary(words), now - AGAIN_AFTER)


def _summary(words: str) -> str:
    return f"Alarm: {words}"
