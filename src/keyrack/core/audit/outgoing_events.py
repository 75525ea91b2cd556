"""What webhooks, syslog and event files share: events as JSON, and when they count as sent; must send nothing."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import Any

from keyrack.core.instance import Instance
from keyrack.model import Event

LATE = timedelta(seconds=30)
"""On PostgreSQL an event may appear after one with a larger id; a transaction is waited for so long."""


def is_settled(instance: Instance, event: Event) -> bool:
    """Whether no event with a smaller id can appear any more, so that those up to this one need not be read again."""
    is_sqlite = instance.settings.database_url.startswith("sqlite")
    return is_sqlite or event.at < instance.now() - LATE


def fields(event: Event) -> dict[str, Any]:
    """An event as other programs get it."""
    return {
        "id": event.id,
        "at": event.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "workspace_id": event.workspace_id,
        "actor": event.actor_name,
        "token": event.token_name,
        "address": event.address,
        "channel": event.channel,
        "action": event.action,
        "outcome": event.outcome,
        "reason": event.reason,
        "target_kind": event.target_kind,
        "target_id": event.target_id,
        "server_id": event.server_id,
        "summary": event.summary,
        "level": event.level,
        "details": dict(event.details),
    }
