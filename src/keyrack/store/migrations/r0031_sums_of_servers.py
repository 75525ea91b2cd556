"""Every server can hold the sum of the seals of its rows, so that one deleted or put back by others is noticed."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, LargeBinary

revision = "0031"
down_revision = "0030"


def upgrade() -> None:
    """Add a column."""
    op.add_column("servers", Column("rows_sum", LargeBinary(32)))
