"""Tells people of what nobody may do through Keyrack at all; must not stop what goes on without it."""

from __future__ import annotations

from datetime import timedelta

import structlog
from sqlalchemy import Connection

from keyrack.core.instance import Instance
from keyrack.core.people import keyrack
from keyrack.store import events, servers
from keyrack.store.database import DatabaseUnavailable

# Hosts ask every few seconds for a document that is not signed; the same alarm is raised this often.
AGAIN_AFTER = timedelta(hours=1)

log = structlog.get_logger("keyrack")


def raise_once(instance: Instance, server_id: int, code: str, words: str) -> None:
    """Raise an alarm about a server, unless the same was raised within the last hour. code: the event's reason."""
    now = instance.now()
    summary = f"Alarm: {words}"

    def is_known(connection: Connection) -> bool:
        return events.was_raised(connection, server_id, code, summary, now - AGAIN_AFTER)

    def add(connection: Connection) -> None:
        server = servers.by_id(connection, server_id)
        if server is None or is_known(connection):
            return
        events.add(
            connection,
            keyrack(server.workspace_id, door="agent"),
            at=now,
            action="servers:write",
            outcome="refused",
            reason=code,
            target_kind="server",
            target_id=server_id,
            server_id=server_id,
            summary=summary,
            level="alarm",
            details={},
        )

    try:
        if not instance.database.read(is_known):
            instance.database.write(add)
            log.error("alarm", server=server_id, reason=words)
    except DatabaseUnavailable:
        log.error("alarm not recorded", server=server_id, reason=words)
