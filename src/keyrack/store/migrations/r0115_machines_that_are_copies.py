"""Which run of its agent asked last for a server, and since when two machines go by its identity."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, String

revision = "0115"
down_revision = "0057"


def upgrade() -> None:
    """Add columns, empty in all rows there are."""
    op.add_column("servers", Column("agent_run", String(32)))
    op.add_column("servers", Column("copied_at", BigInteger))
