"""Tells people of what nobody may do through Keyrack at all; must not stop what goes on without it."""

from __future__ import annotations

from datetime import timedelta

import structlog
from sqlalchemy import Connection

from keyrack.core.instance import Instance
from keyrack.core.people import keyrack
from keyrack.errors import Refusal
from keyrack.store import events, servers
from keyrack.store.database import DatabaseUnavailable

# Hosts ask every few seconds for a document that is not signed; the same alarm is raised this often.
AGAIN_AFTER = timedelta(hours=1)

log = structlog.get_logger("keyrack")


def broken_seal(instance: Instance, server_id: int, refusal: Refusal) -> None:
    """Raise the alarm that rows of a server's keys were changed in the database, past Keyrack."""
    now = instance.now()
    summary = f"Alarm: {refusal.message}"

    def is_known(connection: Connection) -> bool:
        return events.was_raised(connection, server_id, refusal.code, summary, now - AGAIN_AFTER)

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
            reason=refusal.code,
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
            log.error("alarm", server=server_id, reason=refusal.message)
    except DatabaseUnavailable:
        log.error("alarm not recorded", server=server_id, reason=refusal.message)
