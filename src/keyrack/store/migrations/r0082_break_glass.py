"""What finds the grants to break glass with: there are few."""

from __future__ import annotations

from alembic import op
from sqlalchemy import text

revision = "0082"
down_revision = "0081"

FEW = text("break_glass IS NOT NULL")


def upgrade() -> None:
    """Add an index."""
    op.create_index("ix_grants_break_glass", "grants", ["workspace_id"], sqlite_where=FEW, postgresql_where=FEW)
