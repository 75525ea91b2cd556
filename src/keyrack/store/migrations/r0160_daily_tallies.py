"""What is counted a day, for charts; it begins empty."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, ForeignKey, Integer, String

revision = "0160"
down_revision = "0170"


def upgrade() -> None:
    """Create it."""
    op.create_table(
        "daily_tallies",
        Column(
            "workspace_id",
            Integer,
            ForeignKey("workspaces.id", ondelete="CASCADE"),
            primary_key=True,
            autoincrement=False,
        ),
        Column("day", Integer, primary_key=True, autoincrement=False),
        Column("what", String(32), primary_key=True),
        Column("number", Integer, nullable=False),
    )
