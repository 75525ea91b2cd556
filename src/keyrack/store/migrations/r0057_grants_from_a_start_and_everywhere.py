"""Grants from a start on, for all servers and with a reason; users that are programs."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, String, Text, text

revision = "0057"
down_revision = "0056"

TO_BEGIN = text("begun_at IS NULL AND starts_at IS NOT NULL")


def upgrade() -> None:
    """Add columns, empty in all rows there are, and what finds grants to all servers and those whose start comes."""
    op.add_column("grants", Column("all_servers", Boolean))
    op.add_column("grants", Column("starts_at", BigInteger))
    op.add_column("grants", Column("begun_at", BigInteger))
    op.add_column("grants", Column("reason", Text))
    op.create_index("ix_grants_all_servers", "grants", ["all_servers"])
    op.create_index("ix_grants_to_begin", "grants", ["starts_at"], sqlite_where=TO_BEGIN, postgresql_where=TO_BEGIN)
    op.add_column("users", Column("kind", String(16)))
