"""Whose a key was whose end came, and what it was called; empty for those that ended before."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, Integer, Text

revision = "0230"
down_revision = "0181"


def upgrade() -> None:
    """Add both, and find a person's by the index."""
    op.add_column("expired_keys", Column("user_id", Integer))
    op.add_column("expired_keys", Column("title", Text))
    op.create_index("ix_expired_keys_user_id_expired_at", "expired_keys", ["user_id", "expired_at"])
