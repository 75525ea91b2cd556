"""`keyrack hosts list` on an instance's own data, from its records; must hold no rule, the core has them."""

from __future__ import annotations

from typing import Any

from keyrack.cli.connection.operator_context import operator_context
from keyrack.cli.output.spans import ago
from keyrack.cli.output.tables import PAGE_SIZE, every
from keyrack.core.hosts import server_list, status, undecided_keys

Row = tuple[int, str, str, str, str, str, int]


def rows(given: dict[str, Any]) -> list[Row]:
    """What is shown of each host; given: the options that say where the data is."""
    with operator_context(given, or_logged_in=True) as at:
        undecided = undecided_keys.counts(at.instance, at.actor)
        now = at.instance.now()
        listed = []
        for server in every(lambda offset: server_list.find(at.instance, at.actor, offset=offset, limit=PAGE_SIZE)):
            held = status.of(at.instance, server)
            revisions = f"{held.applied}/{held.wanted}"
            seen = ago(now, held.seen_at)
            listed.append((server.id, server.name, held.mode, held.state, revisions, seen, undecided.get(server.id, 0)))
        return listed
