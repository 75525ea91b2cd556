"""Accounts at GitHub and GitLab whose keys a user here has too."""

from __future__ import annotations

import sqlalchemy
from alembic import op
from sqlalchemy import BigInteger, Column, ForeignKey, Integer, LargeBinary, String, Text

revision = "0056"
down_revision = "0055"


def upgrade() -> None:
    """Add a table."""
    op.create_table(
        "key_sources",
        Column("id", Integer, nullable=False),
        Column("workspace_id", Integer, ForeignKey("workspaces.id", ondelete="CASCADE"), nullable=False),
        Column("user_id", Integer, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
        Column("kind", String(16), nullable=False),
        Column("url", Text, nullable=False),
        Column("account", Text, nullable=False),
        Column("account_id", Text),
        Column("keys", sqlalchemy.JSON, nullable=False),
        Column("etag", Text, nullable=False),
        Column("state", String(16), nullable=False),
        Column("words", Text, nullable=False),
        Column("checked_at", BigInteger),
        Column("next_at", BigInteger, nullable=False),
        Column("created_at", BigInteger, nullable=False),
        Column("seal", LargeBinary(32), nullable=False),
        sqlalchemy.PrimaryKeyConstraint("id"),
        sqlalchemy.UniqueConstraint("user_id", "kind"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_key_sources_workspace_id", "key_sources", ["workspace_id"])
    op.create_index("ix_key_sources_next_at", "key_sources", ["next_at"])
