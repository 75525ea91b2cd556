"""Lists all damaged rows at once, as tests have few; test_damaged.py tries the pages."""

from __future__ import annotations

from keyrack.core.instance import Instance
from keyrack.core.keys import damaged_rows
from keyrack.core.keys.damaged_rows import DamagedRow
from keyrack.model import Actor


def damaged(instance: Instance, actor: Actor, server_id: int | None = None) -> list[DamagedRow]:
    """The damaged rows of the actor's workspace, or those that concern one server."""
    found: list[DamagedRow] = []
    cursor: str | None = ""
    while cursor is not None:
        page = damaged_rows.find(instance, actor, server_id, cursor=cursor)
        found += page.items
        cursor = page.next
    return found
