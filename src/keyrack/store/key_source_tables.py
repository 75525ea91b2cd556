"""The table of accounts elsewhere whose keys users have here too; must hold no question."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Integer, LargeBinary, String, Table, Text, UniqueConstraint

from keyrack.store.columns import Json, Moment, metadata

key_sources = Table(
    "key_sources",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("workspace_id", Integer, ForeignKey("workspaces.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("user_id", Integer, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("url", Text, nullable=False),
    Column("account", Text, nullable=False),
    # The account's number there, by which another one of the same name is told; empty until it was asked for.
    Column("account_id", Text),
    # What the account had when last looked at: fingerprints, each with the id of the key that came of it, if one did.
    Column("keys", Json, nullable=False),
    Column("etag", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("words", Text, nullable=False),
    Column("checked_at", Moment),
    Column("next_at", Moment, nullable=False, index=True),
    Column("created_at", Moment, nullable=False),
    Column("seal", LargeBinary(32), nullable=False),
    UniqueConstraint("user_id", "kind"),
    sqlite_autoincrement=True,
)
