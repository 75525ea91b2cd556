"""How far logins were told by each host, so that each is an event once."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, ForeignKey, Integer, String

revision = "0180"
down_revision = "0131"


def upgrade() -> None:
    """Create it, empty: a host's next batch is its first."""
    op.create_table(
        "told_logins",
        Column("server_id", Integer, ForeignKey("servers.id", ondelete="CASCADE"), primary_key=True),
        Column("batch", String(32), nullable=False),
        Column("hour_from", BigInteger, nullable=False),
        Column("events", Integer, nullable=False),
        Column("left_out", Integer, nullable=False),
    )
