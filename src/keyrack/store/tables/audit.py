"""The tables of the audit log: events, the tree over them, and what is counted a day; must hold no question."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, String, Table, Text

from keyrack.store.tables.columns import Json, Moment, id_column, index_where, metadata, numbered, referring

IS_ALARM = "level = 'alarm'"
IS_REFUSAL = "outcome <> 'done' AND level <> 'alarm'"
"""What somebody tried and was refused. An alarm may have such an outcome too and is none (model.Event.is_refusal)."""

events = numbered(
    "events",
    id_column(),
    Column("workspace_id", Integer, nullable=False),
    Column("at", Moment, nullable=False),
    Column("actor_id", Integer),
    Column("actor_name", Text, nullable=False),
    Column("token_id", Integer),
    Column("token_name", Text, nullable=False),
    Column("address", String(64), nullable=False),
    Column("channel", String(16), nullable=False),
    Column("action", String(64), nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("target_kind", String(32), nullable=False),
    Column("target_id", Integer),
    Column("server_id", Integer),
    Column("summary", Text, nullable=False),
    Column("level", String(8), nullable=False),
    Column("details", Json, nullable=False),
    Column("seal", LargeBinary(40)),  # see store/sealing/event_seals.py
    Index("ix_events_workspace_id_id", "workspace_id", "id"),
    Index("ix_events_server_id_id", "server_id", "id"),
    index_where("ix_events_alarms", "workspace_id", "id", condition=IS_ALARM),
)

audit_leaves = Table(
    "audit_leaves",
    metadata,
    # The place of an event in the log; it stays when the event itself is deleted for its age.
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("event_id", BigInteger, nullable=False, unique=True),
    Column("hash", LargeBinary(32), nullable=False),
    Column("seal", LargeBinary(32), nullable=False),
)

audit_nodes = Table(
    "audit_nodes",
    metadata,
    # Hashes of whole parts of the tree, on every eighth level.
    Column("level", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary(32), nullable=False),
)

audit_checkpoints = Table(
    "audit_checkpoints",
    metadata,
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("text", Text, nullable=False),
    Column("signature", Text, nullable=False),
    Column("at", Moment, nullable=False),
)

daily_tallies = Table(
    "daily_tallies",
    metadata,
    # day: days since 1970, in UTC; what: see core/audit/tallies.py. Nothing is decided by these rows.
    Column("workspace_id", Integer, referring("workspaces"), primary_key=True, autoincrement=False),
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("what", String(32), primary_key=True),
    Column("number", Integer, nullable=False),
)
