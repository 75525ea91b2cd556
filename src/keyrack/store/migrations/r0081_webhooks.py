"""Webhooks, and the queue of what is sent to them."""

from __future__ import annotations

from alembic import op
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Integer,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
    text,
)

from keyrack.store.tables.columns import Json

revision = "0081"
down_revision = "0080"

WAITING = text("state = 'waiting'")


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "webhooks",
        Column("id", Integer, primary_key=True),
        Column("workspace_id", Integer, ForeignKey("workspaces.id", ondelete="CASCADE"), nullable=False),
        Column("url", Text, nullable=False),
        Column("encrypted_secret", LargeBinary, nullable=False),
        Column("level", String(8), nullable=False),
        Column("actions", Json, nullable=False),
        Column("active", Boolean, nullable=False),
        Column("cursor", Integer, nullable=False),
        Column("created_by", Text, nullable=False),
        Column("created_at", BigInteger, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_webhooks_workspace_id", "webhooks", ["workspace_id"])
    op.create_table(
        "webhook_deliveries",
        Column("id", Integer, primary_key=True),
        Column("webhook_id", Integer, ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False),
        Column("event_id", Integer),
        Column("state", String(16), nullable=False),
        Column("attempts", Integer, nullable=False),
        Column("status", Integer),
        Column("words", Text, nullable=False),
        Column("created_at", BigInteger, nullable=False),
        Column("next_at", BigInteger, nullable=False),
        Column("delivered_at", BigInteger),
        UniqueConstraint("webhook_id", "event_id", name="uq_webhook_deliveries_webhook_id_event_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_webhook_deliveries_created_at", "webhook_deliveries", ["created_at"])
    op.create_index(
        "ix_webhook_deliveries_waiting",
        "webhook_deliveries",
        ["next_at"],
        sqlite_where=WAITING,
        postgresql_where=WAITING,
    )
