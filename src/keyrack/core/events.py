"""The audit log as people read it; must never change an event."""

from __future__ import annotations

from keyrack.core.instance import Instance
from keyrack.core.work import Attempt
from keyrack.errors import missing
from keyrack.model import Actor, Event, Page
from keyrack.store import events, servers


def find(
    instance: Instance,
    actor: Actor,
    *,
    server_id: int | None = None,
    search: str = "",
    offset: int = 0,
    limit: int = 15,
) -> Page[Event]:
    """A page of the workspace's events, or of one server's, newest first. Raises Refusal MISSING for the server."""
    attempt = Attempt(instance, actor, "events:read", "read the audit log", target_kind="event", server_id=server_id)
    with attempt:
        found = attempt.read(
            lambda connection: (
                events.find(
                    connection, actor.workspace_id, server_id=server_id, search=search, offset=offset, limit=limit
                )
                if server_id is None or servers.own_id(connection, actor.workspace_id, server_id)
                else None
            )
        )
        if found is None:
            raise missing("server")
        return found
