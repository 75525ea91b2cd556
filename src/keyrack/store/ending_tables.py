"""The tables of keys that reached their end, and of freezes; must hold no question and no rule."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Index, Integer, LargeBinary, String, Table, Text

from keyrack.store.columns import Json, Moment, metadata

expired_keys = Table(
    "expired_keys",
    metadata,
    # Keys whose end came: unless a setting allows it, nobody registers one in this workspace again.
    Column("workspace_id", Integer, ForeignKey("workspaces.id", ondelete="CASCADE"), primary_key=True),
    Column("fingerprint", String(64), primary_key=True),
    Column("expired_at", Moment, nullable=False, index=True),
    # Whose it was and what it was called, for who looks for it; empty for keys on hosts, and those noted before.
    Column("user_id", Integer),
    Column("title", Text),
    Column("seal", LargeBinary(32)),
    Index("ix_expired_keys_user_id_expired_at", "user_id", "expired_at"),
)

freezes = Table(
    "freezes",
    metadata,
    # Who froze which keys and why. What decides is in the rows of servers and keys (frozen_at).
    Column("id", Integer, primary_key=True),
    Column("workspace_id", Integer, ForeignKey("workspaces.id", ondelete="CASCADE"), nullable=False),
    Column("user_id", Integer),
    Column("server_id", Integer),
    Column("reason", Text, nullable=False),
    Column("asked_by", Text, nullable=False),
    Column("at", Moment, nullable=False),
    Column("keys", Integer, nullable=False),
    # The servers that it is for, with the revision that says so.
    Column("revisions", Json, nullable=False),
    Column("ended_at", Moment),
    Column("ended_by", Text),
    Index("ix_freezes_workspace_id_id", "workspace_id", "id"),
    sqlite_autoincrement=True,
)
