"""What whoever decided a request for access said with it; empty for those that were decided before."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, Text

revision = "0161"
down_revision = "0160"


def upgrade() -> None:
    """Add it."""
    op.add_column("access_requests", Column("word", Text))
