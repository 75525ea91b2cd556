"""Indexes of what is looked for in a caller's way or in the writer among rows that grow with what people do."""

from __future__ import annotations

from alembic import op
from sqlalchemy import text

revision = "0360"
down_revision = "0355"

LISTED = text("kind = 'api' AND revoked_at IS NULL")


def upgrade() -> None:
    """Add them."""
    op.create_index("ix_sessions_fingerprint", "sessions", ["fingerprint"])
    op.create_index("ix_web_sessions_used_at", "web_sessions", ["used_at"])
    op.create_index("ix_tokens_listed", "tokens", ["workspace_id", "id"], sqlite_where=LISTED, postgresql_where=LISTED)
