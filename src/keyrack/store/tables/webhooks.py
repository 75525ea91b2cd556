"""The tables of webhooks and of what was sent to them; must hold no question and no rule."""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, LargeBinary, String, Text, UniqueConstraint, text

from keyrack.store.tables.columns import Flag, Json, Moment, id_column, index_where, numbered, referring

# Questions use these very words, or a database would not use the index.
IS_WAITING = text("state = 'waiting'")

webhooks = numbered(
    "webhooks",
    # Where events of a workspace are sent. cursor: every event up to this id was looked at.
    id_column(),
    Column("workspace_id", Integer, referring("workspaces"), nullable=False, index=True),
    Column("url", Text, nullable=False),
    Column("encrypted_secret", LargeBinary, nullable=False),
    Column("level", String(8), nullable=False),
    Column("actions", Json, nullable=False),
    Column("active", Flag, nullable=False),
    Column("cursor", Integer, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
)

webhook_deliveries = numbered(
    "webhook_deliveries",
    # The durable queue: events for webhooks, each tried until it is delivered or given up; without event_id, a test.
    id_column(),
    Column("webhook_id", Integer, referring("webhooks"), nullable=False),
    Column("event_id", Integer),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("status", Integer),
    Column("words", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("next_at", Moment, nullable=False),
    Column("delivered_at", Moment),
    UniqueConstraint("webhook_id", "event_id"),
    index_where("ix_webhook_deliveries_waiting", "next_at", condition=IS_WAITING.text),
    Index("ix_webhook_deliveries_created_at", "created_at"),
    Index("ix_webhook_deliveries_webhook_id_id", "webhook_id", "id"),
)
