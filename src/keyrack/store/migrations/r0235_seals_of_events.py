"""Events have seals from here on; up to which one they have none is noted by who has the key (app.py)."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, LargeBinary

revision = "0235"
down_revision = "0230"


def upgrade() -> None:
    """Add the column, empty."""
    op.add_column("events", Column("seal", LargeBinary(40)))
