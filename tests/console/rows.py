"""What a database holds, to compare before and after something that is to change nothing."""

from __future__ import annotations

from sqlalchemy import Connection, select

from keyrack.store import tables
from tests.services import Service

# What is noted beside requests, whatever they ask for.
NOTED = {"web_sessions", "audit_checkpoints", "audit_leaves", "daily_tallies", "instance_facts"}
# How far events were sent.
NOTED |= {"webhooks", "webhook_deliveries"}
# How the rows of other tables are sealed, brought up to date beside requests.
NOTED |= {"access_tree"}


def kept(console: Service) -> dict[str, str]:
    """Everything that the database holds, by table."""
    names = sorted(set(tables.metadata.tables) - NOTED)

    def ask(connection: Connection) -> dict[str, str]:
        return {name: repr(connection.execute(select(tables.metadata.tables[name])).all()) for name in names}

    return console.instance.database.read(ask)
